/** How long the last turn took, step by step. Pure. */

import type { TraceRecord } from './wire'

const MARKS = ['stt_final', 'llm_first_token', 'first_frame_published'] as const
export type Mark = (typeof MARKS)[number]

/** When things happened in one turn, in ns of the agent's monotonic clock. */
export interface Turn {
  turn: number
  heardNs: number
  marksNs: Partial<Record<Mark, number>>
}

export interface Step {
  mark: Mark
  /** Since the caller's last word. */
  atMs: number
  /** Since the step before. */
  tookMs: number
}

/** A turn opens with `user_stopped`; one that comes again means that the caller went on, and what was begun is void. */
export function withRecord(turn: Turn | null, record: TraceRecord): Turn | null {
  if (record.event === 'user_stopped') {
    return turn && record.turn < turn.turn ? turn : { turn: record.turn, heardNs: record.t_ns, marksNs: {} }
  }
  const mark = MARKS.find((name) => name === record.event)
  if (!turn || !mark || record.turn !== turn.turn || turn.marksNs.first_frame_published !== undefined) return turn
  return { ...turn, marksNs: { ...turn.marksNs, [mark]: record.t_ns } }
}

export function stepsOf(turn: Turn): Step[] {
  const steps: Step[] = []
  let beforeMs = 0
  for (const mark of MARKS) {
    const ns = turn.marksNs[mark]
    if (ns === undefined) continue
    const atMs = (ns - turn.heardNs) / 1e6
    steps.push({ mark, atMs, tookMs: atMs - beforeMs })
    beforeMs = atMs
  }
  return steps
}
