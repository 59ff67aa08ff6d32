import { describe, expect, it } from 'vitest'
import { type Caption, withCaption } from '../src/captions'

function said(segment: string, stream: number, text: string, more: Partial<Caption> = {}): Caption {
  return { segment, stream, text, side: 'caller', final: false, ...more }
}

function texts(...pieces: Caption[]): string[] {
  return pieces.reduce<readonly Caption[]>(withCaption, []).map(({ text }) => text)
}

describe('captions', () => {
  it('keep the order in which both sides began to speak', () => {
    expect(texts(said('u1', 1, 'How'), said('a1', 2, 'Well', { side: 'agent' }), said('u1', 3, 'How tall?'))).toEqual([
      'How tall?',
      'Well',
    ])
  })

  it('replace an interim text by the final one', () => {
    const captions = [said('u1', 1, 'how tall'), said('u1', 2, 'How tall?', { final: true })].reduce(
      withCaption,
      [] as readonly Caption[],
    )
    expect(captions).toEqual([said('u1', 2, 'How tall?', { final: true })])
  })

  it('do not fall back to an older stream that ends late', () => {
    expect(texts(said('u1', 2, 'How tall?', { final: true }), said('u1', 1, 'how'))).toEqual(['How tall?'])
  })

  it('tell sides apart even where segments have one name', () => {
    expect(texts(said('1', 1, 'Hi'), said('1', 2, 'Hello', { side: 'agent' }))).toEqual(['Hi', 'Hello'])
  })

  it('withdraw what turned out to be no speech, and never show nothing', () => {
    expect(texts(said('u1', 1, 'you'), said('u1', 2, ''))).toEqual([])
    expect(texts(said('u1', 1, '  '))).toEqual([])
  })

  it('are bounded', () => {
    const many = Array.from({ length: 300 }, (_, index) => said(`u${index}`, index, String(index)))
    const kept = texts(...many)
    expect(kept).toHaveLength(200)
    expect(kept.at(-1)).toBe('299')
  })
})
