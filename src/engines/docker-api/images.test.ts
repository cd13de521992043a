import { expect, test } from 'vitest'
import { splitImage } from './images.ts'

test.each([
  ['alpine', 'alpine', 'latest'],
  ['alpine:3', 'alpine', '3'],
  ['host:5000/a/b', 'host:5000/a/b', 'latest'],
  ['host:5000/a/b:1', 'host:5000/a/b', '1'],
  ['a@sha256:0f', 'a', 'sha256:0f'],
  ['host:5000/a:1@sha256:0f', 'host:5000/a', 'sha256:0f'],
])('%s', (image, name, tag) => {
  expect(splitImage(image)).toEqual({ name, tag })
})
