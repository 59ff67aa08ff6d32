/** Waiting for a free line: the place in the queue, until the call is granted. */

import { type Api, refusal } from './api'
import { Trouble } from './problem'
import { sleep } from './time'
import { type CallGranted, type CallQueued, type CallReply, type Ticket, callReply, fromJson } from './wire'

const POLL_MS = 2_000
const FIRST_EVENT_WITHIN_MS = 3_000
const UNREACHABLE_FOR_MS = 20_000

/**
 * Follows server-sent events, which keep the place of a hidden tab whose timers are throttled; polls where they do
 * not arrive. Throws Trouble when the place is lost or the server stays away; ends silently when `signal` aborts.
 */
export async function* waitInQueue(
  api: Api,
  ticket: Ticket,
  signal: AbortSignal,
): AsyncGenerator<CallQueued | CallGranted> {
  let eventsWork = 'EventSource' in globalThis
  let reachedAt = performance.now()
  while (!signal.aborted) {
    if (eventsWork) {
      eventsWork = false
      for await (const reply of eventsOf(api.eventsUrl(ticket), signal)) {
        if (reply.status === 'refused') throw refusal(reply)
        eventsWork = true
        reachedAt = performance.now()
        yield reply
      }
    }
    if (signal.aborted) return
    try {
      yield await api.poll(ticket)
      reachedAt = performance.now()
    } catch (error) {
      const passing = error instanceof Trouble && ['unreachable', 'odd_reply', 'unavailable'].includes(error.problem.kind)
      if (!passing || performance.now() - reachedAt > UNREACHABLE_FOR_MS) throw error
    }
    await sleep(POLL_MS, signal)
  }
}

/** The replies of one connection; ends when it breaks, or when it is silent from the start. */
async function* eventsOf(url: string, signal: AbortSignal): AsyncGenerator<CallReply> {
  const arrived: CallReply[] = []
  let open = true
  let wake = (): void => {}
  const close = (): void => {
    open = false
    wake()
  }
  const source = new EventSource(url)
  const silent = setTimeout(close, FIRST_EVENT_WITHIN_MS)
  source.onmessage = ({ data }: MessageEvent<string>) => {
    clearTimeout(silent)
    const reply = callReply(fromJson(data))
    if (reply) arrived.push(reply)
    wake()
  }
  source.onerror = close
  signal.addEventListener('abort', close)
  try {
    while (true) {
      yield* arrived.splice(0)
      if (!open) return
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  } finally {
    clearTimeout(silent)
    signal.removeEventListener('abort', close)
    source.close()
  }
}
