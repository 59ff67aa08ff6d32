import { describe, expect, it } from 'vitest'
import { type Event, INITIAL, type State, busy, reduce, shown } from '../src/state'
import type { ProblemKind } from '../src/problem'

const MICROPHONE: Event = { type: 'microphone_on', devices: [{ id: 'a', label: 'Headset' }], deviceId: 'a' }
const IN_CALL: Event[] = [
  { type: 'called' },
  MICROPHONE,
  { type: 'dialled' },
  { type: 'granted' },
  { type: 'joined' },
  { type: 'agent_changed', agent: 'listening' },
]

function after(...events: Event[]): State {
  return events.reduce(reduce, INITIAL)
}

function failed(kind: ProblemKind, retryAfterS?: number): Event {
  return { type: 'failed', problem: retryAfterS === undefined ? { kind } : { kind, retryAfterS } }
}

describe('a call', () => {
  it('goes from the button through microphone, admission and ringing to the agent', () => {
    const seen = IN_CALL.map((_, index) => shown(after(...IN_CALL.slice(0, index + 1))))
    expect(seen).toEqual(['microphone', 'microphone', 'dialling', 'ringing', 'ringing', 'listening'])
  })

  it('asks for no microphone that is already open', () => {
    expect(shown(after(MICROPHONE, { type: 'called' }))).toBe('dialling')
  })

  it('rings until the agent says what it does', () => {
    expect(shown(after(...IN_CALL.slice(0, 5), { type: 'agent_changed', agent: 'initializing' }))).toBe('ringing')
  })

  it('follows the agent', () => {
    for (const agent of ['thinking', 'speaking', 'listening'] as const) {
      expect(shown(after(...IN_CALL, { type: 'agent_changed', agent }))).toBe(agent)
    }
  })

  it('waits in the queue and starts by itself', () => {
    const queued = after(...IN_CALL.slice(0, 3), { type: 'queued', position: 2, etaS: 30 })
    expect(shown(queued)).toBe('queued')
    expect(queued.queue).toEqual({ position: 2, etaS: 30 })
    const granted = reduce(queued, { type: 'granted' })
    expect(shown(granted)).toBe('ringing')
    expect(granted.queue).toBeNull()
  })

  it('leaves what was said on the page when it ends', () => {
    const caption = { segment: 's', stream: 1, side: 'agent', text: 'Goodbye.', final: true } as const
    const said = { reason: 'idle', message: 'Nobody spoke.' } as const
    const state = after(...IN_CALL, { type: 'captioned', caption }, { type: 'ended', said })
    expect(shown(state)).toBe('ended')
    expect(state.ending).toEqual({ by: 'agent', said })
    expect(state.captions).toEqual([caption])
    expect(reduce(state, { type: 'called' }).captions).toEqual([])
  })

  it('is over for good: late news changes nothing', () => {
    const over = after(...IN_CALL, { type: 'hung_up' })
    expect(over.ending?.by).toBe('caller')
    const late: Event[] = [
      { type: 'agent_changed', agent: 'speaking' },
      { type: 'agent_late' },
      { type: 'link_changed', up: false },
      { type: 'sound_blocked', blocked: true },
      { type: 'granted' },
      { type: 'joined' },
      { type: 'queued', position: 1, etaS: null },
      { type: 'traced', record: { event: 'user_stopped', t_ns: 1, turn: 1 } },
      { type: 'ended', said: null },
    ]
    for (const event of late) expect(reduce(over, event), event.type).toBe(over)
  })

  it('that is given up before it began leaves the page as it was', () => {
    expect(shown(after(...IN_CALL.slice(0, 3), { type: 'hung_up' }))).toBe('idle')
  })
})

describe('a lost connection', () => {
  it('is shown instead of a state that nobody knows', () => {
    const lost = after(...IN_CALL, { type: 'link_changed', up: false })
    expect(shown(lost)).toBe('reconnecting')
    expect(shown(reduce(lost, { type: 'link_changed', up: true }))).toBe('listening')
  })

  it('stays shown while the call is joined anew, and ends as a call when that fails', () => {
    const again = after(...IN_CALL, { type: 'link_changed', up: false }, { type: 'granted' })
    expect(shown(again)).toBe('reconnecting')
    expect(shown(reduce(again, { type: 'joined' }))).toBe('listening')
    expect(shown(reduce(again, failed('link_lost')))).toBe('ended')
  })
})

describe('a problem', () => {
  it('before the call leads back to the button, with the time to wait', () => {
    const state = after(...IN_CALL.slice(0, 3), failed('full', 1.2))
    expect(shown(state)).toBe('idle')
    expect(busy(state)).toBe(false)
    expect(state.problem?.kind).toBe('full')
    expect(state.retryInS).toBe(2)
    const waited = [1, 2, 3].reduce((before) => reduce(before, { type: 'second_passed' }), state)
    expect(waited.retryInS).toBe(0)
  })

  it('goes when a new call begins', () => {
    expect(after({ type: 'called' }, failed('unreachable'), { type: 'called' }).problem).toBeNull()
  })

  it('with an absent agent goes when the agent comes', () => {
    const late = after(...IN_CALL.slice(0, 5), { type: 'agent_late' })
    expect(late.problem?.kind).toBe('agent_late')
    expect(reduce(late, { type: 'agent_changed', agent: 'absent' }).problem?.kind).toBe('agent_late')
    expect(reduce(late, { type: 'agent_changed', agent: 'speaking' }).problem).toBeNull()
  })

  it('is not made of an agent that is there', () => {
    expect(after(...IN_CALL, { type: 'agent_late' }).problem).toBeNull()
  })

  it('with the microphone goes when there is one again, and no other does', () => {
    const lost = after(...IN_CALL, { type: 'noted', problem: { kind: 'microphone_lost' } })
    expect(reduce(lost, MICROPHONE).problem).toBeNull()
    const late = after(...IN_CALL.slice(0, 5), { type: 'agent_late' })
    expect(reduce(late, MICROPHONE).problem?.kind).toBe('agent_late')
  })
})

it('asks for an access key, and says when it was wrong', () => {
  const asked = after(...IN_CALL.slice(0, 3), { type: 'key_wanted', wrong: false })
  expect([shown(asked), asked.keyWrong, busy(asked)]).toEqual(['key', false, false])
  expect(reduce(asked, { type: 'key_wanted', wrong: true }).keyWrong).toBe(true)
})
