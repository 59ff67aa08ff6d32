import { describe, expect, it } from 'vitest'
import { type Turn, stepsOf, withRecord } from '../src/timeline'

const MS = 1_000_000

function turnOf(...records: [event: string, ms: number, turn?: number][]): Turn | null {
  return records.reduce<Turn | null>(
    (turn, [event, ms, number = 1]) => withRecord(turn, { event, t_ns: 5e15 + ms * MS, turn: number }),
    null,
  )
}

function stepsAt(turn: Turn | null): Record<string, number> {
  return Object.fromEntries((turn ? stepsOf(turn) : []).map(({ mark, atMs }) => [mark, Math.round(atMs)]))
}

describe('the time line', () => {
  it('counts from the last word of the caller', () => {
    const turn = turnOf(['user_stopped', 0], ['stt_final', 64], ['llm_first_token', 151], ['first_frame_published', 218])
    expect(stepsAt(turn)).toEqual({ stt_final: 64, llm_first_token: 151, first_frame_published: 218 })
    expect(stepsOf(turn!).map(({ tookMs }) => Math.round(tookMs))).toEqual([64, 87, 67])
  })

  it('shows what there is so far', () => {
    expect(stepsAt(turnOf(['user_stopped', 0], ['llm_first_token', 100]))).toEqual({ llm_first_token: 100 })
  })

  it('begins anew when the caller went on speaking', () => {
    const turn = turnOf(['user_stopped', 0], ['stt_final', 60], ['user_stopped', 900], ['stt_final', 950])
    expect(stepsAt(turn)).toEqual({ stt_final: 50 })
  })

  it('keeps the last turn until the next one has been heard', () => {
    const done: [string, number][] = [['user_stopped', 0], ['stt_final', 60], ['first_frame_published', 200]]
    expect(turnOf(...done, ['user_started', 3000, 2], ['stt_final', 3100, 2])?.turn).toBe(1)
    expect(turnOf(...done, ['user_stopped', 4000, 2])?.turn).toBe(2)
  })

  it('ignores an older turn, a second first sound, and a greeting that nobody asked for', () => {
    expect(turnOf(['user_stopped', 0, 2], ['user_stopped', 10, 1])?.turn).toBe(2)
    const twice = turnOf(['user_stopped', 0], ['first_frame_published', 200], ['first_frame_published', 900])
    expect(stepsAt(twice)).toEqual({ first_frame_published: 200 })
    expect(turnOf(['first_frame_published', 0, 0])).toBeNull()
  })
})
