import { type IncomingMessage, type Server, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { Api, KeyWanted } from '../src/api'
import { problemOf } from '../src/problem'
import { waitInQueue } from '../src/queue'
import type { CallGranted, CallQueued } from '../src/wire'

const TICKET = { call_id: 'c 1', secret: 's3cret' }
const GRANTED = { status: 'granted', ...TICKET, room: 'r', url: 'ws://127.0.0.1', token: 't', expires_at: 1 }
const QUEUED = { status: 'queued', ...TICKET, position: 2, eta_s: null }

let server: Server | undefined

afterEach(() => {
  server?.closeAllConnections()
  server?.close()
  server = undefined
})

interface Answer {
  status: number
  body?: unknown
  headers?: Record<string, string>
}

/** A token server that gives these answers in turn, the last one for ever, and keeps what it was asked. */
async function serve(...answers: Answer[]): Promise<{ api: Api; asked: IncomingMessage[] }> {
  const asked: IncomingMessage[] = []
  const listening = createServer((request, response) => {
    const { status, body, headers } = answers[Math.min(asked.length, answers.length - 1)]!
    asked.push(request)
    response.writeHead(status, headers).end(typeof body === 'string' ? body : JSON.stringify(body))
  })
  server = listening
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve))
  const { port } = listening.address() as AddressInfo
  return { api: new Api(`http://127.0.0.1:${port}/sub/`), asked }
}

async function problemIn(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'none',
    (error: unknown) => problemOf(error).kind,
  )
}

it('asks for a call beneath the page, with the key that it was given', async () => {
  const { api, asked } = await serve({ status: 201, body: GRANTED })
  api.accessKey = 'open sesame'
  expect(await api.request()).toEqual(GRANTED)
  expect([asked[0]?.method, asked[0]?.url, asked[0]?.headers.authorization]).toEqual([
    'POST',
    '/sub/api/calls',
    'Bearer open sesame',
  ])
})

it('says that a key is wanted, and whether one was given', async () => {
  const { api } = await serve({ status: 401, body: 'Who are you?' })
  await expect(api.request()).rejects.toMatchObject(new KeyWanted(false))
  api.accessKey = 'wrong'
  await expect(api.request()).rejects.toMatchObject(new KeyWanted(true))
})

it('passes on why it was refused, and when to try again', async () => {
  const full = { status: 'refused', error: 'full', message: 'All lines are busy.', retry_after_s: 12 }
  const { api } = await serve({ status: 503, body: full })
  await expect(api.request()).rejects.toMatchObject({
    problem: { kind: 'full', message: 'All lines are busy.', retryAfterS: 12 },
  })
})

it('tells a proxy’s words from the token server’s', async () => {
  const { api } = await serve(
    { status: 502, body: '<h1>Bad Gateway</h1>' },
    { status: 429, body: '<h1>Slow down</h1>', headers: { 'Retry-After': '7' } },
  )
  await expect(api.request()).rejects.toMatchObject({ problem: { kind: 'odd_reply', message: '502' } })
  await expect(api.request()).rejects.toMatchObject({ problem: { kind: 'too_many_tries', retryAfterS: 7 } })
})

it('says when nobody answers', async () => {
  const { api } = await serve({ status: 201, body: GRANTED })
  await new Promise((resolve) => server?.close(resolve))
  expect(await problemIn(api.request())).toBe('unreachable')
})

it('asks for its own call with the secret, and knows when it is over', async () => {
  const gone = { status: 'refused', error: 'not_found', message: 'No such call.', retry_after_s: null }
  const { api, asked } = await serve({ status: 200, body: GRANTED }, { status: 404, body: gone })
  expect(await api.poll(TICKET)).toEqual(GRANTED)
  expect([asked[0]?.url, asked[0]?.headers['x-call-secret']]).toEqual(['/sub/api/calls/c%201', 's3cret'])
  expect(await problemIn(api.poll(TICKET))).toBe('call_gone')
})

it('gives a call back', async () => {
  const { api, asked } = await serve({ status: 204 })
  api.release(TICKET)
  await expect.poll(() => asked[0]?.method).toBe('DELETE')
  expect(asked[0]?.headers['x-call-secret']).toBe('s3cret')
})

it('waits its turn by polling where there are no events, through a hiccup', { timeout: 15_000 }, async () => {
  const { api } = await serve(
    { status: 200, body: QUEUED },
    { status: 502, body: 'restarting' },
    { status: 200, body: GRANTED },
  )
  const seen: string[] = []
  for await (const reply of waitInQueue(api, TICKET, new AbortController().signal)) {
    seen.push(label(reply))
    if (reply.status === 'granted') break
  }
  expect(seen).toEqual(['queued 2', 'granted'])
})

it('stops waiting at once when the caller leaves', async () => {
  const { api, asked } = await serve({ status: 200, body: QUEUED })
  const leaving = new AbortController()
  for await (const _ of waitInQueue(api, TICKET, leaving.signal)) leaving.abort()
  expect(asked).toHaveLength(1)
})

function label(reply: CallQueued | CallGranted): string {
  return reply.status === 'queued' ? `queued ${reply.position}` : reply.status
}
