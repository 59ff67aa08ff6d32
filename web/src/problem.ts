/** Everything that can go wrong for a caller; i18n.ts says each in words. */

export type ProblemKind =
  | 'microphone_insecure'
  | 'microphone_unsupported'
  | 'microphone_refused'
  | 'microphone_missing'
  | 'microphone_busy'
  | 'microphone_failed'
  | 'microphone_lost'
  | 'full'
  | 'unavailable'
  | 'bad_request'
  | 'call_gone'
  | 'too_many_tries'
  | 'unreachable'
  | 'odd_reply'
  | 'page_outdated'
  | 'signal_blocked'
  | 'media_blocked'
  | 'agent_late'
  | 'link_lost'
  | 'elsewhere'
  | 'unexpected'

export interface Problem {
  kind: ProblemKind
  /** Words of the server or the browser, where they add something. */
  message?: string
  retryAfterS?: number
}

/** Carries a problem up to where it is shown. */
export class Trouble extends Error {
  readonly problem: Problem

  constructor(kind: ProblemKind, details: Omit<Problem, 'kind'> = {}) {
    super(details.message ? `${kind}: ${details.message}` : kind)
    this.problem = { kind, ...details }
  }
}

export function problemOf(error: unknown): Problem {
  return error instanceof Trouble ? error.problem : { kind: 'unexpected', message: String(error) }
}
