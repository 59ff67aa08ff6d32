/** Ties the page's parts together. */

import { Api } from './api'
import { Call } from './call'
import { wordsFor } from './i18n'
import { keepKey, keptKey } from './kept'
import { Microphone } from './microphone'
import { type Event, INITIAL, reduce } from './state'
import { View } from './view'

const view = new View(wordsFor(navigator.languages))
let state = INITIAL

function dispatch(event: Event): void {
  state = reduce(state, event)
  view.draw(state)
}

const api = new Api(document.baseURI)
api.accessKey = keptKey()
const microphone = new Microphone(dispatch, (level) => view.drawLevel(level))
const call = new Call(api, microphone, view.voice, dispatch)

view.call.addEventListener('click', () => void call.dial())
view.hangUp.addEventListener('click', ({ detail }) => {
  // The second click of a double click on Call lands here
  if (detail < 2) call.hangUp()
})
view.mute.addEventListener('click', () => void call.mute(!state.muted))
view.volume.addEventListener('input', () => {
  view.voice.volume = view.volume.valueAsNumber / 100
})
view.sound.addEventListener('click', () => void call.startSound())
view.check.addEventListener('click', () => void call.chooseMicrophone())
view.microphone.addEventListener('change', () => void call.chooseMicrophone(view.microphone.value))
view.key.addEventListener('submit', (event) => {
  event.preventDefault()
  api.accessKey = view.keyInput.value.trim()
  keepKey(api.accessKey)
  view.keyInput.value = ''
  void call.dial()
})
view.keyCancel.addEventListener('click', () => call.hangUp())
setInterval(() => {
  if (state.retryInS > 0) dispatch({ type: 'second_passed' })
}, 1_000)

addEventListener('pagehide', () => call.pageHidden())
addEventListener('pageshow', ({ persisted }) => {
  // Back from the browser's cache, with its connections cut
  if (persisted) location.reload()
})

view.draw(state)
void call.goOn()
// The heavy part arrives while the caller reads
void import('./room').catch(() => {})
