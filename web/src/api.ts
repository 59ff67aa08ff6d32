/** The token server's door: ask for a call, ask again, give it back. */

import { Trouble } from './problem'
import { type CallRefused, type CallReply, type Ticket, callReply, fromJson } from './wire'

const ANSWER_WITHIN_MS = 15_000

/** The access key is missing (`given` false) or not accepted. */
export class KeyWanted extends Error {
  readonly given: boolean

  constructor(given: boolean) {
    super('access key wanted')
    this.given = given
  }
}

export class Api {
  accessKey = ''
  private readonly base: URL

  /** `base` is the address of the page. */
  constructor(base: string) {
    this.base = new URL('api/calls', base)
  }

  /** A new call. Throws KeyWanted, or Trouble when refused or unreachable. */
  async request(): Promise<Exclude<CallReply, CallRefused>> {
    const init = { method: 'POST', headers: { ...this.headers(), 'Content-Type': 'application/json' }, body: '{}' }
    const reply = await this.ask(this.base, init, (status) => {
      if (status === 401 || status === 403) throw new KeyWanted(this.accessKey !== '')
    })
    if (reply.status === 'refused') throw refusal(reply)
    return reply
  }

  /** How a call stands, with a fresh token when it is granted. Throws Trouble; `call_gone` when it is over. */
  async poll(ticket: Ticket): Promise<Exclude<CallReply, CallRefused>> {
    const reply = await this.ask(this.urlOf(ticket), { headers: this.headers(ticket) })
    if (reply.status === 'refused') throw refusal(reply)
    return reply
  }

  /** Give a call or a place in the queue back; goes out even when the page is closing. */
  release(ticket: Ticket): void {
    // A lost release costs nothing: the server takes back what nobody uses
    fetch(this.urlOf(ticket), { method: 'DELETE', headers: this.headers(ticket), keepalive: true }).catch(() => {})
  }

  /** Server-sent events with the same replies as `poll`. */
  eventsUrl(ticket: Ticket): string {
    return `${this.urlOf(ticket)}/events?secret=${encodeURIComponent(ticket.secret)}`
  }

  private urlOf(ticket: Ticket): URL {
    return new URL(`calls/${encodeURIComponent(ticket.call_id)}`, this.base)
  }

  private headers(ticket?: Ticket): Record<string, string> {
    return {
      ...(this.accessKey && { Authorization: `Bearer ${this.accessKey}` }),
      ...(ticket && { 'X-Call-Secret': ticket.secret }),
    }
  }

  private async ask(url: URL, init: RequestInit, onStatus?: (status: number) => void): Promise<CallReply> {
    let response: Response
    let body: string
    try {
      response = await fetch(url, { ...init, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) })
      body = await response.text()
    } catch {
      throw new Trouble('unreachable')
    }
    onStatus?.(response.status)
    const reply = callReply(fromJson(body))
    if (reply) return reply
    if (response.status === 429) throw new Trouble('too_many_tries', { retryAfterS: retryAfterS(response) ?? 10 })
    throw new Trouble('odd_reply', { message: String(response.status), retryAfterS: retryAfterS(response) ?? 0 })
  }
}

export function refusal({ error, message, retry_after_s }: CallRefused): Trouble {
  // With its secret a call is only refused when it is no more
  const kind = error === 'not_found' || error === 'forbidden' ? 'call_gone' : error
  return new Trouble(kind, { message, retryAfterS: retry_after_s ?? 0 })
}

function retryAfterS(response: Response): number | null {
  const seconds = Number(response.headers.get('Retry-After') ?? NaN)
  return Number.isFinite(seconds) ? seconds : null
}
