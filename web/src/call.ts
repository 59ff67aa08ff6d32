/** One call from the press of the button to its end: microphone, admission, queue, room. */

import { type Api, KeyWanted } from './api'
import { forgetTicket, keepTicket, keptTicket } from './kept'
import type { Microphone } from './microphone'
import { Trouble, problemOf } from './problem'
import { waitInQueue } from './queue'
import type { CallRoom, RoomHandler } from './room'
import type { Event, State } from './state'
import { sleep } from './time'
import type { CallEnded, CallGranted, CallQueued, Ticket } from './wire'

const AGENT_WITHIN_MS = 15_000
const RETURN_FOR_MS = 20_000
const RETURN_EVERY_MS = 2_000
/** How long after its last word the agent may take to close the room. */
const FAREWELL_MS = 2_000

export class Call {
  private attempt = new AbortController()
  private ticket: Ticket | null = null
  private room: CallRoom | null = null
  private muted = false
  private agentLate: ReturnType<typeof setTimeout> | undefined
  private readonly api: Api
  private readonly microphone: Microphone
  private readonly voice: HTMLAudioElement
  private readonly dispatch: (event: Event) => void

  constructor(api: Api, microphone: Microphone, voice: HTMLAudioElement, dispatch: (event: Event) => void) {
    this.api = api
    this.microphone = microphone
    this.voice = voice
    this.dispatch = dispatch
  }

  async dial(): Promise<void> {
    await this.carry(async (signal) => {
      this.dispatch({ type: 'called' })
      await this.microphone.open()
      if (signal.aborted) return
      this.dispatch({ type: 'dialled' })
      const reply = await this.api.request()
      if (signal.aborted) return this.api.release(reply)
      await this.follow(reply, signal)
    })
  }

  /** Goes on with the call, or the place in the queue, that this tab had before it was reloaded. */
  async goOn(): Promise<void> {
    const ticket = keptTicket()
    if (!ticket) return
    await this.carry(async (signal) => {
      this.ticket = ticket
      this.dispatch({ type: 'returned' })
      const reply = await this.api.poll(ticket)
      if (signal.aborted) return
      // Waiting must not wait for the browser's question
      await Promise.all([this.microphone.open(), this.follow(reply, signal)])
    })
  }

  hangUp(): void {
    if (this.ticket) this.api.release(this.ticket)
    this.close()
    this.dispatch({ type: 'hung_up' })
  }

  /** The browser takes the page down. The call itself stays the caller's for a while: this may be a reload. */
  pageHidden(): void {
    this.room?.leave()
  }

  async mute(muted: boolean): Promise<void> {
    this.muted = muted
    this.dispatch({ type: 'muted', muted })
    await this.room?.mute(muted)
  }

  /** Opens the microphone to try it out, or changes it, in a call or before. */
  async chooseMicrophone(deviceId?: string): Promise<void> {
    const { signal } = this.attempt
    try {
      const track = await (deviceId === undefined ? this.microphone.open() : this.microphone.choose(deviceId))
      await this.room?.changeMicrophone(track, this.muted)
    } catch (error) {
      if (!signal.aborted) this.dispatch({ type: 'noted', problem: problemOf(error) })
    }
  }

  async startSound(): Promise<void> {
    await this.room?.startSound()
  }

  /** Runs one attempt; whatever ends it badly is shown, unless the caller has hung up meanwhile. */
  private async carry(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.attempt.abort()
    const attempt = new AbortController()
    this.attempt = attempt
    try {
      await work(attempt.signal)
    } catch (error) {
      if (attempt.signal.aborted) return
      if (error instanceof KeyWanted) {
        this.close()
        this.dispatch({ type: 'key_wanted', wrong: error.given })
      } else {
        this.fail(error)
      }
    }
  }

  private fail(error: unknown): void {
    if (this.ticket) this.api.release(this.ticket)
    this.close()
    this.dispatch({ type: 'failed', problem: problemOf(error) })
  }

  private close(): void {
    this.attempt.abort()
    this.attempt = new AbortController()
    clearTimeout(this.agentLate)
    this.room?.leave()
    this.room = null
    this.ticket = null
    this.muted = false
    forgetTicket()
    this.microphone.close()
  }

  private async follow(reply: CallGranted | CallQueued, signal: AbortSignal): Promise<void> {
    this.ticket = keepTicket(reply)
    if (reply.status === 'granted') return this.join(reply, signal)
    this.dispatch({ type: 'queued', position: reply.position, etaS: reply.eta_s })
    for await (const next of waitInQueue(this.api, reply, signal)) {
      if (signal.aborted) return
      if (next.status === 'granted') return this.join(next, signal)
      this.dispatch({ type: 'queued', position: next.position, etaS: next.eta_s })
    }
  }

  private async join(granted: CallGranted, signal: AbortSignal): Promise<void> {
    this.dispatch({ type: 'granted' })
    const [{ CallRoom }, track] = await Promise.all([loadRoom(), this.microphone.open()])
    if (signal.aborted) return
    this.expectAgent()
    const room = await CallRoom.join(granted, track, this.muted, this.voice, this.handler(signal), signal)
    this.room = room
    this.dispatch({ type: 'joined' })
  }

  private handler(signal: AbortSignal): RoomHandler {
    let farewell: CallEnded | null = null
    return {
      agentChanged: (agent: State['agent']) => {
        if (agent === 'absent') this.expectAgent()
        else clearTimeout(this.agentLate)
        this.dispatch({ type: 'agent_changed', agent })
      },
      linkChanged: (up) => this.dispatch({ type: 'link_changed', up }),
      soundBlocked: (blocked) => this.dispatch({ type: 'sound_blocked', blocked }),
      captioned: (caption) => this.dispatch({ type: 'captioned', caption }),
      traced: (record) => this.dispatch({ type: 'traced', record }),
      farewell: (said) => {
        farewell = said
        void sleep(FAREWELL_MS, signal).then(() => {
          if (!signal.aborted) this.over(said)
        })
      },
      disconnected: (why) => {
        if (signal.aborted) return
        if (farewell || why === 'over') {
          this.over(farewell)
        } else if (why === 'elsewhere') {
          this.ticket = null // it is the other page's now
          this.fail(new Trouble('elsewhere'))
        } else {
          void this.comeBack()
        }
      },
    }
  }

  private expectAgent(): void {
    clearTimeout(this.agentLate)
    this.agentLate = setTimeout(() => this.dispatch({ type: 'agent_late' }), AGENT_WITHIN_MS)
  }

  /** The agent's side has ended the call. */
  private over(said: CallEnded | null): void {
    this.close()
    this.dispatch({ type: 'ended', said })
  }

  /** The room was lost for longer than LiveKit's client tries; with a fresh token the call may still go on. */
  private async comeBack(): Promise<void> {
    const { ticket } = this
    if (!ticket) return
    this.room = null
    await this.carry(async (signal) => {
      this.dispatch({ type: 'link_changed', up: false })
      const deadline = performance.now() + RETURN_FOR_MS
      while (!signal.aborted) {
        try {
          const reply = await this.api.poll(ticket)
          if (signal.aborted) return
          return await this.follow(reply, signal)
        } catch (error) {
          if (problemOf(error).kind === 'call_gone') throw error
          if (performance.now() > deadline) throw new Trouble('link_lost')
        }
        await sleep(RETURN_EVERY_MS, signal)
      }
    })
  }
}

async function loadRoom(): Promise<typeof import('./room')> {
  try {
    return await import('./room')
  } catch {
    throw new Trouble('page_outdated')
  }
}
