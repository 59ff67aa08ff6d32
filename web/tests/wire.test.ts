import { describe, expect, it } from 'vitest'
import { agentState, callEnded, callReply, fromJson, traceRecord } from '../src/wire'

const GRANTED = {
  status: 'granted',
  call_id: 'c',
  secret: 's',
  room: 'r',
  url: 'ws://127.0.0.1:8080',
  token: 't',
  expires_at: 1.5,
}
const REFUSED = { status: 'refused', error: 'full', message: 'Full.', retry_after_s: null }

describe('replies of the token server', () => {
  it('are taken when whole', () => {
    expect(callReply(GRANTED)).toEqual(GRANTED)
    const queued = { status: 'queued', call_id: 'c', secret: 's', position: 1, eta_s: null }
    expect(callReply(queued)).toEqual(queued)
    expect(callReply(REFUSED)).toEqual(REFUSED)
  })

  it('are refused when something is missing', () => {
    const values = [undefined, null, 7, {}, { ...GRANTED, token: undefined }, { ...REFUSED, error: 'nonsense' }]
    for (const value of values) expect(callReply(value)).toBeNull()
    expect(callReply(fromJson('<h1>502 Bad Gateway</h1>'))).toBeNull()
  })

  it('may leave out when to try again', () => {
    const { retry_after_s: _, ...short } = REFUSED
    expect(callReply(short)).toEqual(REFUSED)
  })
})

it('takes trace records of turns only', () => {
  expect(traceRecord({ event: 'user_stopped', t_ns: 1, turn: 2, extra: true })).toMatchObject({ turn: 2 })
  expect(traceRecord({ event: 'room_joined', t_ns: 1 })).toBeNull()
})

it('takes the last word of the agent', () => {
  expect(callEnded({ reason: 'idle', message: 'Bye.' })).toEqual({ reason: 'idle', message: 'Bye.' })
  expect(callEnded({ reason: 'idle' })).toBeNull()
})

it('does not trust an unknown state', () => {
  expect([agentState('speaking'), agentState('dancing'), agentState(undefined)]).toEqual([
    'speaking',
    'initializing',
    'initializing',
  ])
})
