import { describe, expect, it } from 'vitest'
import { locate, stateDirOf, urlOfListen, type Surroundings } from '../../src/cli/locate.ts'
import { UsageError } from '../../src/cli/parse.ts'

const around = (
  env: Record<string, string>,
  files: Record<string, string> = {},
  uid = 1000,
): Surroundings => ({
  env,
  uid,
  home: '/home/me',
  read: (path) => files[path] ?? null,
})

const DIR = '/home/me/.local/state/holdfast'
const FILES = {
  [`${DIR}/server.json`]: '{"url":"https://127.0.0.1:9443","proxyUrl":"https://127.0.0.1:9444","pid":7}',
  [`${DIR}/cli.key`]: 'local-key\n',
}

describe('where the server is', () => {
  it('prefers flags, then the environment, then the state directory, then the default', () => {
    const env = { HOLDFAST_SERVER: 'http://env:1/', HOLDFAST_LISTEN: '127.0.0.1:2' }
    expect(locate({ server: 'flag:3' }, around(env, FILES))).toMatchObject({
      url: 'http://flag:3',
      urlFrom: 'flag',
    })
    expect(locate({}, around(env, FILES))).toMatchObject({ url: 'http://env:1', urlFrom: 'HOLDFAST_SERVER' })
    expect(locate({}, around({ HOLDFAST_LISTEN: '127.0.0.1:2' }, FILES))).toMatchObject({
      url: 'http://127.0.0.1:2',
    })
    expect(locate({}, around({}, FILES))).toMatchObject({
      url: 'https://127.0.0.1:9443',
      urlFrom: 'state directory',
    })
    expect(locate({}, around({}))).toMatchObject({
      url: 'http://127.0.0.1:8080',
      urlFrom: 'default',
      apiKey: undefined,
    })
  })

  it('takes the scheme from the server file when that is about the same address', () => {
    expect(locate({}, around({ HOLDFAST_LISTEN: '127.0.0.1:9443' }, FILES)).url).toBe(
      'https://127.0.0.1:9443',
    )
  })

  it.each([
    ['127.0.0.1:8080', 'http://127.0.0.1:8080'],
    ['0.0.0.0:80', 'http://127.0.0.1:80'],
    [':8080', 'http://127.0.0.1:8080'],
    ['[::]:81', 'http://[::1]:81'],
    ['[fe80::1]:81', 'http://[fe80::1]:81'],
    ['host:82', 'http://host:82'],
    ['127.0.0.1:0', null],
    ['nonsense', null],
  ])('calls %s at %s', (listen, url) => expect(urlOfListen(listen)).toBe(url))

  it('refuses what is no address', () => {
    expect(() => locate({ server: 'ftp://x' }, around({}))).toThrow(UsageError)
    expect(() => locate({ server: 'http://' }, around({}))).toThrow(UsageError)
  })

  it('survives a server file that is half written', () => {
    expect(locate({}, around({}, { [`${DIR}/server.json`]: '{"url":' })).urlFrom).toBe('default')
  })

  it('has one state directory for each way to name it', () => {
    expect(stateDirOf(around({ HOLDFAST_STATE_DIR: '/s' }))).toBe('/s')
    expect(stateDirOf(around({ XDG_STATE_HOME: '/x' }))).toBe('/x/holdfast')
    expect(stateDirOf(around({}))).toBe(DIR)
    expect(stateDirOf(around({ XDG_STATE_HOME: '/x' }, {}, 0))).toBe('/var/lib/holdfast')
  })
})

describe('which key is sent', () => {
  it('prefers the flag, then the environment, then the file', () => {
    expect(locate({ apiKey: 'f' }, around({ HOLDFAST_API_KEY: 'e' }, FILES)).apiKey).toBe('f')
    expect(locate({}, around({ HOLDFAST_API_KEY: 'e' }, FILES)).apiKey).toBe('e')
    expect(locate({}, around({}, FILES))).toMatchObject({ apiKey: 'local-key', keyFrom: 'state directory' })
  })

  it("does not send the state directory's key to another server", () => {
    expect(locate({ server: 'https://evil.example' }, around({}, FILES)).apiKey).toBeUndefined()
    expect(locate({}, around({ HOLDFAST_SERVER: 'http://127.0.0.1:9443' }, FILES)).apiKey).toBeUndefined()
    expect(locate({ server: 'https://127.0.0.1:9443' }, around({}, FILES)).apiKey).toBe('local-key')
  })
})
