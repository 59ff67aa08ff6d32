/** The call's LiveKit room, as the page needs it. Loaded beside the page: livekit-client is most of its weight. */

import {
  ConnectionError,
  ConnectionErrorReason,
  DisconnectReason,
  LocalAudioTrack,
  type Participant,
  Room,
  RoomEvent,
  type TextStreamReader,
  Track,
  setLogLevel,
} from 'livekit-client'
import type { Caption } from './captions'
import { Trouble } from './problem'
import type { State } from './state'
import {
  AGENT_IDENTITY,
  AGENT_STATE_ATTRIBUTE,
  type CallEnded,
  type CallGranted,
  ENDED_TOPIC,
  TRACE_TOPIC,
  TRANSCRIPTION_TOPIC,
  type TraceRecord,
  agentState,
  callEnded,
  fromJson,
  traceRecord,
} from './wire'

/** As long as the agent waits for a caller whose network is gone. */
const RECONNECT_FOR_MS = 20_000

export interface RoomHandler {
  agentChanged(agent: State['agent']): void
  linkChanged(up: boolean): void
  soundBlocked(blocked: boolean): void
  captioned(caption: Caption): void
  traced(record: TraceRecord): void
  farewell(said: CallEnded): void
  /** `over`: the room is no more. `elsewhere`: another page has taken the call. `lost`: the network or the server. */
  disconnected(why: 'over' | 'elsewhere' | 'lost'): void
}

setLogLevel('warn')

let streams = 0

export class CallRoom {
  private readonly room = new Room({
    disconnectOnPageLeave: false, // Call.pageHidden sees to it
    stopLocalTrackOnUnpublish: false, // Microphone opens and closes it; a full reconnection publishes it anew
    reconnectPolicy: {
      nextRetryDelayInMs: ({ retryCount, elapsedMs }) =>
        elapsedMs > RECONNECT_FOR_MS ? null : Math.min(250 * 2 ** retryCount, 3_000) * (0.5 + Math.random()),
    },
  })
  private readonly microphone: LocalAudioTrack
  private readonly voice: HTMLAudioElement
  private readonly handler: RoomHandler
  private inside = false
  /** Every id that the caller's track has had; a reconnection gives it a new one. */
  private readonly ownTracks = new Set<string>()

  private constructor(microphone: MediaStreamTrack, voice: HTMLAudioElement, handler: RoomHandler) {
    this.microphone = new LocalAudioTrack(microphone, undefined, true)
    this.voice = voice
    this.handler = handler
    this.listen()
  }

  /** Joins and speaks. `voice` plays the agent. Throws Trouble when the room or its media cannot be reached. */
  static async join(
    granted: CallGranted,
    microphone: MediaStreamTrack,
    muted: boolean,
    voice: HTMLAudioElement,
    handler: RoomHandler,
    signal: AbortSignal,
  ): Promise<CallRoom> {
    const joined = new CallRoom(microphone, voice, handler)
    const leave = (): void => void joined.leave()
    signal.addEventListener('abort', leave)
    try {
      if (muted) await joined.microphone.mute()
      const url = new URL(granted.url, location.href).href.replace(/^http/, 'ws')
      await joined.room.connect(url, granted.token)
      joined.inside = true
      await joined.room.localParticipant.publishTrack(joined.microphone, { source: Track.Source.Microphone })
    } catch (error) {
      joined.leave()
      throw connectionTrouble(error)
    } finally {
      signal.removeEventListener('abort', leave)
    }
    joined.lookForAgent()
    return joined
  }

  async mute(muted: boolean): Promise<void> {
    await (muted ? this.microphone.mute() : this.microphone.unmute())
  }

  async changeMicrophone(track: MediaStreamTrack, muted: boolean): Promise<void> {
    await this.microphone.replaceTrack(track, { userProvidedTrack: true })
    // LiveKit mutes a track whose device was unplugged
    await this.mute(muted)
  }

  /** To be called in the handler of a click. */
  async startSound(): Promise<void> {
    await this.room.startAudio()
  }

  leave(): void {
    this.room.removeAllListeners()
    void this.room.disconnect(false)
    this.voice.srcObject = null
  }

  private listen(): void {
    const { room, handler } = this
    const isAgent = ({ identity }: Participant): boolean => identity === AGENT_IDENTITY
    room
      .on(RoomEvent.ParticipantConnected, () => this.lookForAgent())
      .on(RoomEvent.ParticipantDisconnected, (participant) => {
        if (isAgent(participant)) handler.agentChanged('absent')
      })
      .on(RoomEvent.ParticipantAttributesChanged, (_changed, participant) => {
        if (isAgent(participant)) this.lookForAgent()
      })
      .on(RoomEvent.TrackSubscribed, (track, _publication, participant) => {
        if (isAgent(participant) && track.kind === Track.Kind.Audio) track.attach(this.voice)
      })
      .on(RoomEvent.TrackUnsubscribed, (track) => track.detach(this.voice))
      .on(RoomEvent.LocalTrackPublished, ({ trackSid }) => this.ownTracks.add(trackSid))
      .on(RoomEvent.AudioPlaybackStatusChanged, () => handler.soundBlocked(!room.canPlaybackAudio))
      .on(RoomEvent.Reconnecting, () => handler.linkChanged(false))
      .on(RoomEvent.SignalReconnecting, () => handler.linkChanged(false))
      .on(RoomEvent.Reconnected, () => {
        handler.linkChanged(true)
        this.lookForAgent()
      })
      .on(RoomEvent.DataReceived, (payload, _participant, _kind, topic) => this.receive(payload, topic))
      .on(RoomEvent.Disconnected, (reason) => {
        // Before that it is `join` that fails
        if (this.inside) handler.disconnected(whyGone(reason))
      })
    room.registerTextStreamHandler(TRANSCRIPTION_TOPIC, (reader, { identity }) => void this.caption(reader, identity))
  }

  private lookForAgent(): void {
    const agent = this.room.remoteParticipants.get(AGENT_IDENTITY)
    this.handler.agentChanged(agent ? agentState(agent.attributes[AGENT_STATE_ATTRIBUTE]) : 'absent')
  }

  private receive(payload: Uint8Array, topic: string | undefined): void {
    if (topic !== TRACE_TOPIC && topic !== ENDED_TOPIC) return
    const message = fromJson(new TextDecoder().decode(payload))
    if (topic === TRACE_TOPIC) {
      const record = traceRecord(message)
      if (record) this.handler.traced(record)
    } else {
      const said = callEnded(message)
      if (said) this.handler.farewell(said)
    }
  }

  /** A stream carries one segment: the agent's word by word, the caller's again and again until it is final. */
  private async caption(reader: TextStreamReader, sender: string): Promise<void> {
    const stream = ++streams
    const attributes = (): Record<string, string> => reader.info.attributes ?? {}
    const ofCaller =
      sender === this.room.localParticipant.identity ||
      this.ownTracks.has(attributes()['lk.transcribed_track_id'] ?? '')
    const segment = attributes()['lk.segment_id'] ?? reader.info.id
    const side = ofCaller ? 'caller' : 'agent'
    let text = ''
    const show = (final: boolean): void => this.handler.captioned({ segment, stream, side, text, final })
    try {
      for await (const chunk of reader) {
        text += chunk
        show(false)
      }
    } catch {
      // Broken off by the sender: what arrived was said
      return show(true)
    }
    show(side === 'agent' || attributes()['lk.transcription_final'] === 'true')
  }
}

function whyGone(reason: DisconnectReason | undefined): 'over' | 'elsewhere' | 'lost' {
  switch (reason) {
    case DisconnectReason.DUPLICATE_IDENTITY:
      return 'elsewhere'
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
    case DisconnectReason.PARTICIPANT_REMOVED:
      return 'over'
    default:
      return 'lost'
  }
}

function connectionTrouble(error: unknown): Trouble {
  const message = error instanceof Error ? error.message : String(error)
  const reason = error instanceof ConnectionError ? error.reason : undefined
  // The signal connection stood, and sound found no way
  const media = reason === ConnectionErrorReason.InternalError || reason === ConnectionErrorReason.Timeout
  return new Trouble(media ? 'media_blocked' : 'signal_blocked', { message })
}
