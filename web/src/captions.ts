/** What both sides said, as it forms. Pure. */

export type Side = 'caller' | 'agent'

/** What one text stream says of a segment so far. A later stream of a segment replaces what an earlier one said. */
export interface Caption {
  segment: string
  /** Counts streams in order of arrival. */
  stream: number
  side: Side
  text: string
  final: boolean
}

const KEPT = 200

export function withCaption(captions: readonly Caption[], said: Caption): readonly Caption[] {
  const at = captions.findIndex(({ segment, side }) => segment === said.segment && side === said.side)
  const known = captions[at]
  if (known === undefined) return said.text.trim() ? [...captions, said].slice(-KEPT) : captions
  if (said.stream < known.stream) return captions
  // A segment that turned out to be no speech is withdrawn with an empty text
  return said.text.trim() ? captions.with(at, said) : captions.toSpliced(at, 1)
}
