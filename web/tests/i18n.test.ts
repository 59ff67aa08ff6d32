import { expect, it } from 'vitest'
import { fill, wordsFor } from '../src/i18n'

const EN = wordsFor(['en-GB'])
const ZH = wordsFor(['zh-TW', 'en'])

it('speaks the first language that it knows', () => {
  expect(EN.language).toBe('en')
  expect(ZH.language).toBe('zh-CN')
  expect(wordsFor(['fr', 'zh-CN'])).toBe(ZH)
  expect(wordsFor(['fr'])).toBe(EN)
  expect(wordsFor([])).toBe(EN)
})

it('fills in values, and leaves no brace behind', () => {
  expect(fill('{ms} ms', { ms: 12 })).toBe('12 ms')
  expect(fill('Not so {much}')).toBe('Not so')
})

it('has the same places for values in each language', () => {
  const places = (words: unknown): unknown =>
    typeof words === 'string'
      ? (words.match(/\{\w+\}/g) ?? []).sort()
      : Object.fromEntries(Object.entries(words as object).map(([key, value]) => [key, places(value)]))
  // The server's own words are English; the other languages say them anew
  const { ended: _en, problems: enProblems, ...en } = EN
  const { ended: _zh, problems: zhProblems, ...zh } = ZH
  expect(places(zh)).toEqual(places(en))
  expect(Object.keys(zhProblems)).toEqual(Object.keys(enProblems))
})

it('says in every language what to do about every problem', () => {
  for (const words of [EN, ZH]) {
    for (const [kind, [what, todo]] of Object.entries(words.problems)) {
      expect(what, kind).not.toBe('')
      // The server's sentence says both
      if (what !== '{message}') expect(todo, kind).not.toBe('')
    }
  }
})
