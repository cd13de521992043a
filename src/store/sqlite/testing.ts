export { memoryStore } from './memory.ts'
export type { MemoryStore } from './memory.ts'
