import type { Readable } from 'node:stream'
import type { Call } from '../engine.ts'
import type { Api } from './api.ts'

const pathOf = (id: string): string => `/containers/${encodeURIComponent(id)}/archive`

export async function copyOut(api: Api, id: string, path: string, call: Call): Promise<Readable> {
  const what = `reading ${path} of instance ${id}`
  const { body } = await api.stream({
    what,
    method: 'GET',
    path: pathOf(id),
    query: { path },
    endless: true,
    call,
  })
  return body
}

export async function copyIn(api: Api, id: string, path: string, tar: Readable, call: Call): Promise<void> {
  const what = `writing into ${path} of instance ${id}`
  await api.get({ what, method: 'PUT', path: pathOf(id), query: { path }, tar, mutation: true, call })
}
