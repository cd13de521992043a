import type { Define } from './context.ts'

export interface Entry {
  readonly name: string
  readonly aliases?: readonly string[]
  readonly summary: string
  readonly group: 'Sandboxes' | 'Inside a sandbox' | 'Data' | 'Looking' | 'Server'
  /** Reads the command's file only when it is the one asked for: start-up time is most of what `ls` takes. */
  readonly load: () => Promise<{ define: Define }>
  /** Handles SIGINT and SIGTERM itself. */
  readonly ownSignals?: boolean
}

export const CATALOG: readonly Entry[] = [
  {
    name: 'create',
    group: 'Sandboxes',
    summary: 'make a sandbox',
    load: () => import('./commands/create.ts'),
  },
  {
    name: 'run',
    group: 'Sandboxes',
    summary: 'make a sandbox, show its output, exit as it does',
    load: () => import('./commands/run.ts'),
  },
  {
    name: 'ls',
    aliases: ['ps', 'list'],
    group: 'Looking',
    summary: 'list sandboxes',
    load: () => import('./commands/ls.ts'),
  },
  {
    name: 'inspect',
    group: 'Looking',
    summary: 'show everything known about a sandbox',
    load: () => import('./commands/inspect.ts'),
  },
  {
    name: 'explain',
    group: 'Looking',
    summary: 'what is wanted, what is, why they differ, what comes next',
    load: () => import('./commands/explain.ts'),
  },
  {
    name: 'stop',
    group: 'Sandboxes',
    summary: 'stop sandboxes; their data stays',
    load: () => import('./commands/stop.ts'),
  },
  {
    name: 'start',
    group: 'Sandboxes',
    summary: 'start stopped sandboxes',
    load: () => import('./commands/start.ts'),
  },
  {
    name: 'restart',
    group: 'Sandboxes',
    summary: 'stop and start again',
    load: () => import('./commands/restart.ts'),
  },
  {
    name: 'recover',
    group: 'Sandboxes',
    summary: 'give a lost or failed sandbox a new instance on its volumes',
    load: () => import('./commands/recover.ts'),
  },
  {
    name: 'rm',
    aliases: ['delete'],
    group: 'Sandboxes',
    summary: 'delete sandboxes',
    load: () => import('./commands/rm.ts'),
  },
  {
    name: 'exec',
    group: 'Inside a sandbox',
    summary: 'run a command in a sandbox',
    load: () => import('./commands/exec.ts'),
  },
  {
    name: 'shell',
    group: 'Inside a sandbox',
    summary: 'open a shell in a sandbox',
    load: () => import('./commands/shell.ts'),
  },
  {
    name: 'logs',
    group: 'Inside a sandbox',
    summary: 'show the output of the main process',
    load: () => import('./commands/logs.ts'),
  },
  {
    name: 'cp',
    group: 'Inside a sandbox',
    summary: 'copy files into or out of a sandbox',
    load: () => import('./commands/cp.ts'),
  },
  {
    name: 'events',
    group: 'Looking',
    summary: 'show what happened and why',
    load: () => import('./commands/events.ts'),
  },
  {
    name: 'wait',
    group: 'Looking',
    summary: 'wait until sandboxes are in a state',
    load: () => import('./commands/wait.ts'),
  },
  {
    name: 'renew',
    group: 'Sandboxes',
    summary: 'move the expiry',
    load: () => import('./commands/renew.ts'),
  },
  {
    name: 'pause',
    group: 'Sandboxes',
    summary: 'freeze sandboxes',
    load: () => import('./commands/pause.ts'),
  },
  {
    name: 'resume',
    group: 'Sandboxes',
    summary: 'go on after a pause, a stop or a loss',
    load: () => import('./commands/resume.ts'),
  },
  {
    name: 'update',
    group: 'Sandboxes',
    summary: 'change image, environment, limits or command, on the same volumes',
    load: () => import('./commands/update.ts'),
  },
  {
    name: 'port',
    aliases: ['link'],
    group: 'Inside a sandbox',
    summary: 'make a browser link to a port',
    load: () => import('./commands/port.ts'),
  },
  {
    name: 'volume',
    group: 'Data',
    summary: 'create, list, inspect and remove volumes',
    load: () => import('./commands/volume.ts'),
  },
  {
    name: 'backup',
    group: 'Data',
    summary: "write the server's state into one file",
    load: () => import('./commands/backup.ts'),
  },
  {
    name: 'restore',
    group: 'Data',
    summary: 'put the state back from a backup',
    load: () => import('./commands/restore.ts'),
  },
  {
    name: 'rebuild',
    group: 'Data',
    summary: 'make the state anew from what the engine tells, and confirm it',
    load: () => import('./commands/rebuild.ts'),
  },
  {
    name: 'doctor',
    group: 'Server',
    summary: 'look for what could be wrong with this machine',
    load: () => import('./commands/doctor.ts'),
  },
  {
    name: 'audit',
    group: 'Server',
    summary: "compare the engine's objects with what Holdfast knows",
    load: () => import('./commands/audit.ts'),
  },
  {
    name: 'server',
    group: 'Server',
    summary: 'run the server',
    load: () => import('./commands/server.ts'),
    ownSignals: true,
  },
  {
    name: 'completion',
    group: 'Server',
    summary: 'print a completion script for bash, zsh or fish',
    load: () => import('./commands/completion.ts'),
  },
]
