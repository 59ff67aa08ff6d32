/** What crosses the page's border: the same types, topics and names as daemons/wire.py. */

export const AGENT_IDENTITY = 'agent'
export const AGENT_STATE_ATTRIBUTE = 'lk.agent.state'
export const TRANSCRIPTION_TOPIC = 'lk.transcription'
export const TRACE_TOPIC = 'callbox.trace'
export const ENDED_TOPIC = 'callbox.ended'

const AGENT_STATES = ['initializing', 'listening', 'thinking', 'speaking'] as const
export type AgentState = (typeof AGENT_STATES)[number]

/** What proves to the token server whose call it is. */
export interface Ticket {
  call_id: string
  secret: string
}

export interface CallGranted extends Ticket {
  status: 'granted'
  room: string
  url: string
  token: string
  expires_at: number
}

export interface CallQueued extends Ticket {
  status: 'queued'
  position: number
  eta_s: number | null
}

const REFUSALS = ['full', 'unavailable', 'forbidden', 'not_found', 'bad_request'] as const

export interface CallRefused {
  status: 'refused'
  error: (typeof REFUSALS)[number]
  message: string
  retry_after_s: number | null
}

export type CallReply = CallGranted | CallQueued | CallRefused

export type EndReason =
  | 'caller_left'
  | 'caller_absent'
  | 'idle'
  | 'longest_call'
  | 'agent_stopping'
  | 'registry_lost'
  | 'worker_lost'
  | 'media_lost'
  | 'goodbye'
  | 'failed'

export interface CallEnded {
  reason: EndReason
  message: string
}

export interface TraceRecord {
  event: string
  t_ns: number
  turn: number
}

type Fields = Record<string, unknown>

/** The token server's answer, or null when it is none (a proxy's error page, another version's). */
export function callReply(value: unknown): CallReply | null {
  const fields = asFields(value)
  switch (fields?.status) {
    case 'granted':
      return has(fields, 'string', 'call_id', 'secret', 'room', 'url', 'token') && has(fields, 'number', 'expires_at')
        ? (value as CallGranted)
        : null
    case 'queued':
      return has(fields, 'string', 'call_id', 'secret') && has(fields, 'number', 'position')
        ? ({ ...fields, eta_s: asNumber(fields.eta_s) } as CallQueued)
        : null
    case 'refused':
      return has(fields, 'string', 'message') && REFUSALS.some((error) => error === fields.error)
        ? ({ ...fields, retry_after_s: asNumber(fields.retry_after_s) } as CallRefused)
        : null
    default:
      return null
  }
}

export function callEnded(value: unknown): CallEnded | null {
  const fields = asFields(value)
  return fields && has(fields, 'string', 'reason', 'message') ? (value as CallEnded) : null
}

/** A trace event that belongs to a turn; null for any other. */
export function traceRecord(value: unknown): TraceRecord | null {
  const fields = asFields(value)
  return fields && has(fields, 'string', 'event') && has(fields, 'number', 't_ns', 'turn')
    ? (value as TraceRecord)
    : null
}

export function agentState(value: string | undefined): AgentState {
  return AGENT_STATES.find((state) => state === value) ?? 'initializing'
}

/** JSON, or undefined where it is none. */
export function fromJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function asFields(value: unknown): Fields | null {
  return typeof value === 'object' && value !== null ? (value as Fields) : null
}

function asNumber(value: unknown): number | null {
  return typeof value === 'number' ? value : null
}

function has(fields: Fields, type: 'string' | 'number', ...names: string[]): boolean {
  return names.every((name) => typeof fields[name] === type)
}
