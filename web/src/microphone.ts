/** The caller's microphone: permission, choice of device, level. */

import { Trouble } from './problem'
import type { Device, Event } from './state'

const LEVEL_EVERY_MS = 50
const QUIET_DBFS = -55
const LOUD_DBFS = -10

export class Microphone {
  private opening: Promise<MediaStreamTrack> | null = null
  private track: MediaStreamTrack | null = null
  private context: AudioContext | null = null
  private closings = 0
  private readonly dispatch: (event: Event) => void
  private readonly onLevel: (level: number) => void

  /** `onLevel` gets 0 (silence) to 1 (loud). */
  constructor(dispatch: (event: Event) => void, onLevel: (level: number) => void) {
    this.dispatch = dispatch
    this.onLevel = onLevel
    // Not there without TLS; `open` then says so
    navigator.mediaDevices?.addEventListener('devicechange', () => void this.report())
  }

  /** The open microphone; asks for it once. Throws Trouble that says why there is none. */
  open(): Promise<MediaStreamTrack> {
    this.opening ??= this.take().catch((error: unknown) => {
      this.opening = null
      throw error
    })
    return this.opening
  }

  /** Go over to another device; the one in use stays when the new one cannot be had. */
  choose(deviceId: string): Promise<MediaStreamTrack> {
    const before = this.opening
    const next = this.take(deviceId).catch((error: unknown) => {
      this.opening = before
      void this.report()
      throw error
    })
    this.opening = next
    return next
  }

  close(): void {
    this.closings += 1
    this.opening = null
    this.track?.stop()
    this.track = null
    void this.context?.close()
    this.context = null
    this.onLevel(0)
    this.dispatch({ type: 'microphone_off' })
  }

  private async take(deviceId?: string): Promise<MediaStreamTrack> {
    const wanted = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 }
    if (!window.isSecureContext) throw new Trouble('microphone_insecure')
    if (!navigator.mediaDevices?.getUserMedia) throw new Trouble('microphone_unsupported')
    const closings = this.closings
    let track: MediaStreamTrack | undefined
    try {
      const audio = deviceId ? { ...wanted, deviceId: { exact: deviceId } } : wanted
      track = (await navigator.mediaDevices.getUserMedia({ audio })).getAudioTracks()[0]
    } catch (error) {
      throw refusal(error)
    }
    if (!track) throw new Trouble('microphone_missing')
    if (closings !== this.closings) {
      // The caller hung up before answering the browser's question
      track.stop()
      throw new Trouble('microphone_failed')
    }
    this.track?.stop()
    this.track = track
    track.addEventListener('ended', () => this.lose(track))
    this.measure(track)
    await this.report()
    return track
  }

  /** Unplugged, or taken back by the caller or the system. */
  private lose(track: MediaStreamTrack): void {
    if (track !== this.track) return
    this.close()
    this.dispatch({ type: 'noted', problem: { kind: 'microphone_lost' } })
  }

  private async report(): Promise<void> {
    if (!this.track) return
    const devices: Device[] = (await navigator.mediaDevices.enumerateDevices())
      .filter(({ kind, deviceId }) => kind === 'audioinput' && deviceId)
      .map(({ deviceId, label }) => ({ id: deviceId, label }))
    const deviceId = this.track?.getSettings().deviceId
    if (deviceId !== undefined) this.dispatch({ type: 'microphone_on', devices, deviceId })
  }

  private measure(track: MediaStreamTrack): void {
    void this.context?.close()
    const context = new AudioContext()
    this.context = context
    // A page that was reloaded has had no click yet, and measures nothing until one comes
    if (context.state === 'suspended') document.addEventListener('pointerdown', () => void context.resume(), { once: true })
    const analyser = new AnalyserNode(context, { fftSize: 1024 })
    context.createMediaStreamSource(new MediaStream([track])).connect(analyser)
    const samples = new Float32Array(analyser.fftSize)
    const timer = setInterval(() => {
      if (context !== this.context) return clearInterval(timer)
      analyser.getFloatTimeDomainData(samples)
      this.onLevel(levelOf(samples))
    }, LEVEL_EVERY_MS)
  }
}

/** Loudness of samples in -1…1 on a scale that the eye can follow: 0 silence, 1 loud. */
export function levelOf(samples: Float32Array): number {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length
  const dbfs = 10 * Math.log10(power + 1e-12)
  return Math.min(1, Math.max(0, (dbfs - QUIET_DBFS) / (LOUD_DBFS - QUIET_DBFS)))
}

function refusal(error: unknown): Trouble {
  const name = error instanceof DOMException ? error.name : ''
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return new Trouble('microphone_refused')
    case 'NotFoundError':
    case 'OverconstrainedError':
      return new Trouble('microphone_missing')
    case 'NotReadableError':
    case 'AbortError':
      return new Trouble('microphone_busy')
    default:
      return new Trouble('microphone_failed', { message: String(error) })
  }
}
