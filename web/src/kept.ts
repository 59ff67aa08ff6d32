/** What this tab keeps over a reload: its call, and the access key that was given. */

import { type Ticket, fromJson } from './wire'

const CALL = 'callbox.call'
const KEY = 'callbox.key'

export function keepTicket({ call_id, secret }: Ticket): Ticket {
  const ticket = { call_id, secret }
  sessionStorage.setItem(CALL, JSON.stringify(ticket))
  return ticket
}

export function keptTicket(): Ticket | null {
  const value = fromJson(sessionStorage.getItem(CALL) ?? '') as Partial<Ticket> | undefined
  const { call_id, secret } = value ?? {}
  return typeof call_id === 'string' && typeof secret === 'string' ? { call_id, secret } : null
}

export function forgetTicket(): void {
  sessionStorage.removeItem(CALL)
}

export function keepKey(key: string): void {
  sessionStorage.setItem(KEY, key)
}

export function keptKey(): string {
  return sessionStorage.getItem(KEY) ?? ''
}
