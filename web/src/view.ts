/** Draws the state on the page. */

import type { Caption } from './captions'
import { type Words, fill } from './i18n'
import { type State, busy, shown } from './state'
import { stepsOf } from './timeline'

export class View {
  readonly call = find('call', HTMLButtonElement)
  readonly hangUp = find('hangup', HTMLButtonElement)
  readonly mute = find('mute', HTMLButtonElement)
  readonly volume = find('volume', HTMLInputElement)
  readonly sound = find('sound', HTMLButtonElement)
  readonly check = find('check', HTMLButtonElement)
  readonly microphone = find('microphone', HTMLSelectElement)
  readonly key = find('key', HTMLFormElement)
  readonly keyInput = find('key-input', HTMLInputElement)
  readonly keyCancel = find('key-cancel', HTMLButtonElement)
  readonly voice = find('voice', HTMLAudioElement)

  private readonly words: Words
  private readonly state = find('state', HTMLElement)
  private readonly hint = find('hint', HTMLElement)
  private readonly queue = find('queue', HTMLElement)
  private readonly problem = find('problem', HTMLElement)
  private readonly keyWhy = find('key-why', HTMLElement)
  private readonly soundBlocked = find('sound-blocked', HTMLElement)
  private readonly microphoneLabel = find('microphone-label', HTMLElement)
  private readonly volumeLabel = find('volume-label', HTMLElement)
  private readonly level = find('level', HTMLElement)
  private readonly conversation = find('conversation', HTMLElement)
  private readonly captions = find('captions', HTMLElement)
  private readonly lastSaid = find('last-said', HTMLElement)
  private readonly timeline = find('timeline', HTMLElement)
  private drawn: State | null = null

  constructor(words: Words) {
    this.words = words
    document.documentElement.lang = words.language
    for (const element of document.querySelectorAll<HTMLElement>('[data-words]')) {
      const text = words[element.dataset.words as keyof Words]
      if (typeof text === 'string') element.textContent = text
    }
    this.level.setAttribute('aria-label', words.level)
  }

  draw(state: State): void {
    const before = this.drawn
    this.drawn = state
    const focused = document.activeElement
    this.drawStage(state)
    this.drawActions(state)
    if (state.microphone !== before?.microphone) this.drawMicrophones(state)
    if (state.captions !== before?.captions) this.drawCaptions(state.captions)
    if (state.turn !== before?.turn) this.drawTimeline(state)
    const talk = state.captions.length > 0 || !this.timeline.hidden
    this.conversation.hidden = !talk
    this.conversation.parentElement?.classList.toggle('talk', talk)
    // Who works by keyboard must not lose the place when a button goes
    if (focused instanceof HTMLElement && focused !== document.body && !focused.checkVisibility()) this.mainAction(state).focus()
    if (state.phase === 'key' && before?.phase !== 'key') this.keyInput.focus()
  }

  /** 0 silence … 1 loud. */
  drawLevel(level: number): void {
    document.documentElement.style.setProperty('--level', level.toFixed(2))
    this.level.setAttribute('aria-valuenow', String(Math.round(level * 100)))
  }

  private drawStage(state: State): void {
    const { words } = this
    const name = shown(state)
    document.documentElement.dataset.state = name
    this.state.dataset.state = name
    say(this.state, name === 'idle' && state.problem ? words.notConnected : words.shown[name][0])
    say(this.hint, this.hintOf(state))
    say(this.queue, state.phase === 'queued' && state.queue ? this.place(state.queue) : '')
    this.drawProblem(state)
    this.key.hidden = state.phase !== 'key'
    say(this.keyWhy, state.keyWrong ? words.keyWrong : words.keyWhy)
    this.keyInput.setAttribute('aria-invalid', String(state.keyWrong))
    this.soundBlocked.hidden = !state.soundBlocked
  }

  private hintOf(state: State): string {
    const { words } = this
    if (state.phase === 'ended') return this.ending(state)
    if (state.problem && state.phase === 'idle') return ''
    if (state.phase === 'in_call' && state.linkUp && state.muted) return words.muted
    return words.shown[shown(state)][1]
  }

  private ending({ ending }: State): string {
    const { words } = this
    if (!ending) return ''
    if (ending.by === 'caller') return words.endedByCaller
    return ending.said ? (words.ended[ending.said.reason] ?? ending.said.message) : words.endedByAgent
  }

  private place({ position, etaS }: NonNullable<State['queue']>): string {
    const { words } = this
    const place = position <= 1 ? words.queueNext : fill(words.queuePlace, { position })
    if (etaS === null) return place
    const eta =
      etaS < 90
        ? fill(words.etaSeconds, { count: Math.max(5, Math.ceil(etaS / 5) * 5) })
        : fill(words.etaMinutes, { count: Math.round(etaS / 60) })
    return `${place} ${eta}`
  }

  private drawProblem({ problem }: State): void {
    const [what, todo] = this.problem.children
    this.problem.hidden = problem === null
    if (!problem || !what || !todo) return
    this.problem.dataset.kind = problem.kind
    const advice = this.words.problems[problem.kind]
    say(what, fill(advice[0], { message: problem.message ?? '' }))
    say(todo, fill(advice[1]))
  }

  private drawActions(state: State): void {
    const { words } = this
    const inCall = state.phase === 'in_call'
    const hasCall = inCall || state.phase === 'connecting'
    this.call.hidden = busy(state) || state.phase === 'key'
    this.call.disabled = state.retryInS > 0
    say(this.call, callLabel(state, words))
    this.hangUp.hidden = !busy(state)
    say(this.hangUp, state.phase === 'queued' ? words.leaveQueue : hasCall ? words.hangUp : words.cancel)
    this.hangUp.classList.toggle('danger', hasCall)
    this.mute.hidden = !inCall
    this.mute.setAttribute('aria-pressed', String(state.muted))
    say(this.mute, state.muted ? words.unmute : words.mute)
    this.volumeLabel.hidden = !inCall
    this.check.hidden = state.microphone.on || (busy(state) && !inCall) || state.phase === 'key'
    say(this.check, inCall ? words.microphoneAgain : words.microphoneCheck)
  }

  private mainAction(state: State): HTMLElement {
    return state.phase === 'key' ? this.keyInput : busy(state) ? this.hangUp : this.call
  }

  private drawMicrophones({ microphone }: State): void {
    this.level.hidden = !microphone.on
    this.microphoneLabel.hidden = microphone.devices.length === 0 || !microphone.on
    const options = microphone.devices.map(({ id, label }, index) => {
      const name = label || fill(this.words.microphoneNumber, { number: index + 1 })
      return new Option(name, id, false, id === microphone.deviceId)
    })
    this.microphone.replaceChildren(...options)
  }

  private drawCaptions(captions: readonly Caption[]): void {
    const list = this.captions
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 48
    while (list.children.length > captions.length) list.lastElementChild?.remove()
    captions.forEach((caption, index) => {
      const item = list.children[index] ?? list.appendChild(captionItem())
      this.drawCaption(item as HTMLElement, caption)
    })
    if (atEnd) list.scrollTop = list.scrollHeight
    // Read aloud once, when it will not change any more
    const last = captions.findLast(({ final }) => final)
    say(this.lastSaid, last ? `${this.words[last.side === 'caller' ? 'you' : 'agent']}: ${last.text}` : '')
  }

  private drawCaption(item: HTMLElement, { side, text, final }: Caption): void {
    const [who, words] = item.children
    item.dataset.side = side
    item.dataset.final = String(final)
    if (who) say(who, this.words[side === 'caller' ? 'you' : 'agent'])
    if (words) say(words, text)
  }

  private drawTimeline({ turn }: State): void {
    const steps = turn ? stepsOf(turn) : []
    this.timeline.hidden = steps.length === 0
    const items = steps.map(({ mark, atMs, tookMs }) => {
      const item = document.createElement('li')
      item.dataset.mark = mark
      item.dataset.ms = atMs.toFixed(0)
      item.style.flexGrow = Math.max(tookMs, 1).toFixed(0)
      const name = document.createElement('span')
      name.textContent = this.words.marks[mark]
      const time = document.createElement('b')
      time.textContent = fill(this.words.ms, { ms: atMs.toFixed(0) })
      item.append(name, ' ', time)
      return item
    })
    this.timeline.querySelector('ol')?.replaceChildren(...items)
  }
}

function callLabel(state: State, words: Words): string {
  if (state.retryInS > 0) return fill(words.tryAgainIn, { seconds: state.retryInS })
  if (state.phase === 'ended') return words.callAgain
  return state.problem ? words.tryAgain : words.call
}

function captionItem(): HTMLElement {
  const item = document.createElement('li')
  item.className = 'caption'
  item.append(document.createElement('b'), document.createElement('span'))
  return item
}

/** Touches the text only when it changes, so that a screen reader says it once; hides what has nothing to say. */
function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text
  if (element instanceof HTMLElement && !(element instanceof HTMLButtonElement)) element.hidden = text === ''
}

function find<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id)
  if (!(element instanceof type)) throw new Error(`the page has no ${type.name} #${id}`)
  return element
}
