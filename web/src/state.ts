/** The page's state and how events change it. Pure: no DOM, no clock, no network. */

import { type Caption, withCaption } from './captions'
import type { Problem } from './problem'
import { type Turn, withRecord } from './timeline'
import type { AgentState, CallEnded, TraceRecord } from './wire'

export type Phase =
  | 'idle'
  | 'microphone' // the browser asks for it
  | 'dialling' // the token server is asked
  | 'key' // it wants an access key
  | 'returning' // a reloaded page asks for its call
  | 'queued'
  | 'connecting'
  | 'in_call'
  | 'ended'

export interface Device {
  id: string
  label: string
}

export interface State {
  phase: Phase
  agent: AgentState | 'absent'
  linkUp: boolean
  microphone: { on: boolean; devices: readonly Device[]; deviceId: string }
  muted: boolean
  /** The browser wants a click before it plays sound. */
  soundBlocked: boolean
  keyWrong: boolean
  queue: { position: number; etaS: number | null } | null
  problem: Problem | null
  /** Seconds until a new call makes sense. */
  retryInS: number
  /** Who ended the call, and the agent's last word. */
  ending: { by: 'caller' | 'agent'; said: CallEnded | null } | null
  captions: readonly Caption[]
  turn: Turn | null
}

export type Event =
  | { type: 'called' }
  | { type: 'returned' }
  | { type: 'dialled' }
  | { type: 'key_wanted'; wrong: boolean }
  | { type: 'queued'; position: number; etaS: number | null }
  | { type: 'granted' }
  | { type: 'joined' }
  | { type: 'agent_changed'; agent: State['agent'] }
  | { type: 'agent_late' }
  | { type: 'link_changed'; up: boolean }
  | { type: 'microphone_on'; devices: readonly Device[]; deviceId: string }
  | { type: 'microphone_off' }
  | { type: 'muted'; muted: boolean }
  | { type: 'sound_blocked'; blocked: boolean }
  | { type: 'captioned'; caption: Caption }
  | { type: 'traced'; record: TraceRecord }
  | { type: 'noted'; problem: Problem }
  | { type: 'hung_up' }
  | { type: 'ended'; said: CallEnded | null }
  | { type: 'failed'; problem: Problem }
  | { type: 'second_passed' }

/** What the caller is told about where things stand; also `data-state` of the page. */
export type Shown =
  | Exclude<Phase, 'connecting' | 'in_call'>
  | 'ringing'
  | 'reconnecting'
  | Exclude<AgentState, 'initializing'>

export const INITIAL: State = {
  phase: 'idle',
  agent: 'absent',
  linkUp: true,
  microphone: { on: false, devices: [], deviceId: '' },
  muted: false,
  soundBlocked: false,
  keyWrong: false,
  queue: null,
  problem: null,
  retryInS: 0,
  ending: null,
  captions: [],
  turn: null,
}

export function shown(state: State): Shown {
  if (state.phase === 'connecting') return state.linkUp ? 'ringing' : 'reconnecting'
  if (state.phase !== 'in_call') return state.phase
  if (!state.linkUp) return 'reconnecting'
  return state.agent === 'absent' || state.agent === 'initializing' ? 'ringing' : state.agent
}

/** From Call pressed to the call's end: there is something to hang up. */
export function busy(state: State): boolean {
  return state.phase !== 'idle' && state.phase !== 'ended' && state.phase !== 'key'
}

function talking(state: State): boolean {
  return state.phase === 'connecting' || state.phase === 'in_call'
}

export function reduce(state: State, event: Event): State {
  switch (event.type) {
    case 'called':
      return { ...INITIAL, microphone: state.microphone, phase: state.microphone.on ? 'dialling' : 'microphone' }
    case 'returned':
      return { ...INITIAL, microphone: state.microphone, phase: 'returning' }
    case 'dialled':
      return state.phase === 'microphone' || state.phase === 'dialling' ? { ...state, phase: 'dialling' } : state
    case 'key_wanted':
      return { ...state, phase: 'key', keyWrong: event.wrong }
    case 'queued':
      return busy(state) && !talking(state)
        ? { ...state, phase: 'queued', queue: { position: event.position, etaS: event.etaS } }
        : state
    case 'granted':
      return busy(state) ? { ...state, phase: 'connecting', queue: null } : state
    case 'joined':
      return state.phase === 'connecting' ? { ...state, phase: 'in_call', linkUp: true } : state
    case 'agent_changed':
      return talking(state)
        ? { ...state, agent: event.agent, problem: event.agent === 'absent' ? state.problem : without(state, 'agent_late') }
        : state
    case 'agent_late':
      return talking(state) && state.agent === 'absent' ? { ...state, problem: { kind: 'agent_late' } } : state
    case 'link_changed':
      return talking(state) ? { ...state, linkUp: event.up } : state
    case 'microphone_on':
      return {
        ...state,
        microphone: { on: true, devices: event.devices, deviceId: event.deviceId },
        problem: without(state, 'microphone_lost'),
      }
    case 'microphone_off':
      return { ...state, microphone: { ...state.microphone, on: false } }
    case 'muted':
      return { ...state, muted: event.muted }
    case 'sound_blocked':
      return talking(state) ? { ...state, soundBlocked: event.blocked } : state
    case 'captioned':
      return talking(state) ? { ...state, captions: withCaption(state.captions, event.caption) } : state
    case 'traced':
      return talking(state) ? { ...state, turn: withRecord(state.turn, event.record) } : state
    case 'noted':
      return { ...state, problem: event.problem }
    case 'hung_up':
      return talking(state) ? ended(state, { by: 'caller', said: null }) : { ...INITIAL, microphone: state.microphone }
    case 'ended':
      return talking(state) ? ended(state, { by: 'agent', said: event.said }) : state
    case 'failed':
      return {
        ...(state.phase === 'in_call' || !state.linkUp ? ended(state, null) : { ...INITIAL, microphone: state.microphone }),
        problem: event.problem,
        retryInS: Math.ceil(event.problem.retryAfterS ?? 0),
      }
    case 'second_passed':
      return { ...state, retryInS: Math.max(0, state.retryInS - 1) }
  }
}

/** What was said and how long it took stays on the page. */
function ended(state: State, ending: State['ending']): State {
  const { microphone, captions, turn } = state
  return { ...INITIAL, phase: 'ended', ending, microphone, captions, turn }
}

function without(state: State, kind: Problem['kind']): Problem | null {
  return state.problem?.kind === kind ? null : state.problem
}
