import { openLocal } from './local-subject.ts'

/**
 * A control plane in a process of its own, for tests that kill it: starts the instance it is given, says so and stays.
 * With `die-before-go` it kills itself at the last fence of the start, when the state is written and nothing runs yet.
 */
const [root = '', id = '', how = ''] = process.argv.slice(2)
const engine = openLocal(root, 'namespaces')
let fences = 0
await engine.startInstance(id, {
  limitMs: 30_000,
  fence: () => {
    fences += 1
    if (how === 'die-before-go' && fences === 3) process.kill(process.pid, 'SIGKILL')
  },
})
console.log('started')
setInterval(() => undefined, 1_000)
