export { createLocalEngine, type LocalEngineOptions } from './local.ts'
export { probeIsolation } from './probe.ts'
