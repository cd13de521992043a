import type { FastifyRequest } from 'fastify'
import type { Context } from './context.ts'

/** Aborted when the client goes away or the server closes, so that nothing is done for nobody. */
export function abortOnClose(request: FastifyRequest, ctx: Pick<Context, 'closing' | 'gone'>): AbortSignal {
  const { socket } = request.raw
  const known = ctx.gone.get(socket)
  if (known !== undefined) return AbortSignal.any([known, ctx.closing])
  const gone = new AbortController()
  const onClose = (): void => gone.abort(new Error('the client went away'))
  if (socket.destroyed) onClose()
  else socket.once('close', onClose)
  ctx.gone.set(socket, gone.signal)
  return AbortSignal.any([gone.signal, ctx.closing])
}
