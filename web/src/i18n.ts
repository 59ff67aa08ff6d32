/** Every word of the page, in each language that it speaks. `{name}` stands for a value. */

import type { ProblemKind } from './problem'
import type { Shown } from './state'
import type { Mark } from './timeline'
import type { EndReason } from './wire'

/** What happened, and what to do about it. */
type Advice = readonly [what: string, todo: string]

export interface Words {
  language: string
  call: string
  callAgain: string
  tryAgain: string
  tryAgainIn: string
  hangUp: string
  cancel: string
  leaveQueue: string
  mute: string
  unmute: string
  muted: string
  notConnected: string
  volume: string
  soundOn: string
  soundBlocked: string
  microphone: string
  microphoneCheck: string
  microphoneAgain: string
  microphoneNumber: string
  level: string
  conversation: string
  you: string
  agent: string
  queuePlace: string
  queueNext: string
  etaSeconds: string
  etaMinutes: string
  keyLabel: string
  keyWhy: string
  keyWrong: string
  keySend: string
  timeline: string
  timelineFrom: string
  ms: string
  marks: Record<Mark, string>
  shown: Record<Shown, Advice>
  endedByCaller: string
  endedByAgent: string
  /** The server says it in English; these say it again. */
  ended: Partial<Record<EndReason, string>>
  problems: Record<ProblemKind, Advice>
}

const en: Words = {
  language: 'en',
  call: 'Call',
  callAgain: 'Call again',
  tryAgain: 'Try again',
  tryAgainIn: 'Try again in {seconds} s',
  hangUp: 'Hang up',
  cancel: 'Cancel',
  leaveQueue: 'Leave the queue',
  mute: 'Mute',
  unmute: 'Unmute',
  muted: 'You are muted: the agent does not hear you.',
  notConnected: 'Not connected',
  volume: 'Volume',
  soundOn: 'Turn sound on',
  soundBlocked: 'Your browser holds the sound back until you click.',
  microphone: 'Microphone',
  microphoneCheck: 'Check my microphone first',
  microphoneAgain: 'Turn the microphone on again',
  microphoneNumber: 'Microphone {number}',
  level: 'Microphone level',
  conversation: 'Conversation',
  you: 'You',
  agent: 'Agent',
  queuePlace: 'You are number {position} in the queue.',
  queueNext: 'You are next.',
  etaSeconds: 'About {count} s to wait.',
  etaMinutes: 'About {count} min to wait.',
  keyLabel: 'Access key',
  keyWhy: 'This box asks for an access key. Whoever runs it can tell you.',
  keyWrong: 'That key was not accepted. Check it and try once more.',
  keySend: 'Call',
  timeline: 'Last turn',
  timelineFrom: 'from your last word',
  ms: '{ms} ms',
  marks: { stt_final: 'text', llm_first_token: 'first token', first_frame_published: 'first sound' },
  shown: {
    idle: ['Ready', 'Press Call and ask something aloud.'],
    microphone: ['Your microphone', 'Your browser asks whether this page may hear you: please allow it.'],
    dialling: ['Calling', 'Looking for a free line.'],
    key: ['Access key', ''],
    returning: ['Coming back', 'Picking up your call where you left it.'],
    queued: ['All lines are busy', 'The call starts by itself when it is your turn. Keep this page open.'],
    ringing: ['Ringing', 'The agent is about to answer.'],
    reconnecting: ['Reconnecting', 'The connection was lost. Stay here: the call goes on when it is back.'],
    listening: ['Listening', 'Go ahead and speak.'],
    thinking: ['Thinking', 'An answer is on its way.'],
    speaking: ['Speaking', 'You can interrupt at any time.'],
    ended: ['Call ended', ''],
  },
  endedByCaller: 'You hung up.',
  endedByAgent: 'The other side has ended the call.',
  ended: {},
  problems: {
    microphone_insecure: [
      'Browsers only give a microphone to secure pages, and this one was opened without TLS.',
      'Open it over https://, or on the machine itself as http://localhost.',
    ],
    microphone_unsupported: ['This browser offers no microphone to pages.', 'Open the page in a current browser.'],
    microphone_refused: [
      'The page was not allowed to use the microphone.',
      'Allow it in the site settings beside the address (and in your system’s privacy settings), then try again.',
    ],
    microphone_missing: ['No microphone was found.', 'Plug one in or switch it on, then try again.'],
    microphone_busy: [
      'The microphone could not be started; another program may be using it.',
      'Close that program or choose another microphone, then try again.',
    ],
    microphone_failed: ['The microphone did not start ({message}).', 'Try again, or choose another microphone.'],
    microphone_lost: [
      'The microphone is gone: unplugged, or taken away by the system.',
      'Turn it on again below, or choose another.',
    ],
    full: ['{message}', ''],
    unavailable: ['{message}', ''],
    bad_request: ['{message}', ''],
    call_gone: ['That call is over: it ended while this page was away.', 'Call again whenever you like.'],
    too_many_tries: ['There were too many tries from your address.', 'Wait a moment, then try again.'],
    unreachable: [
      'The box does not answer.',
      'Check your network, and that the box is running (“callbox status”), then try again.',
    ],
    odd_reply: [
      'The box’s door is open, but the service behind it does not answer (HTTP {message}).',
      'It may be starting: try again in a moment. Whoever runs it can look at “callbox status”.',
    ],
    page_outdated: ['A part of this page could not be loaded.', 'Reload the page and call again.'],
    signal_blocked: [
      'The call could not be connected: the media server does not answer ({message}).',
      'Try again. If it stays so, your network or a proxy may be blocking WebSockets.',
    ],
    media_blocked: [
      'The call was put through, but sound finds no way between you and the box.',
      'A firewall or a VPN is probably blocking it: try another network, or ask whoever runs the box to open its media ports.',
    ],
    agent_late: ['The agent is not in the call.', 'You can wait a little longer, or hang up and call again.'],
    link_lost: ['The connection was lost and did not come back.', 'Check your network, then call again.'],
    elsewhere: ['This call goes on in another tab or window.', 'Close this one, or call again from here.'],
    unexpected: ['Something went wrong in this page: {message}', 'Reload the page and call again.'],
  },
}

const zh: Words = {
  language: 'zh-CN',
  call: '呼叫',
  callAgain: '再次呼叫',
  tryAgain: '重试',
  tryAgainIn: '{seconds} 秒后可重试',
  hangUp: '挂断',
  cancel: '取消',
  leaveQueue: '退出排队',
  mute: '静音',
  unmute: '取消静音',
  muted: '您已静音，对方听不到您的声音。',
  notConnected: '未接通',
  volume: '音量',
  soundOn: '打开声音',
  soundBlocked: '浏览器需要您点击一下才会播放声音。',
  microphone: '麦克风',
  microphoneCheck: '先测试麦克风',
  microphoneAgain: '重新打开麦克风',
  microphoneNumber: '麦克风 {number}',
  level: '麦克风音量',
  conversation: '对话',
  you: '您',
  agent: '助手',
  queuePlace: '您排在第 {position} 位。',
  queueNext: '下一位就是您。',
  etaSeconds: '大约还要等 {count} 秒。',
  etaMinutes: '大约还要等 {count} 分钟。',
  keyLabel: '访问密钥',
  keyWhy: '此服务需要访问密钥，请向管理者索取。',
  keyWrong: '密钥不正确，请检查后再试。',
  keySend: '呼叫',
  timeline: '上一轮',
  timelineFrom: '从您说完算起',
  ms: '{ms} 毫秒',
  marks: { stt_final: '识别出文字', llm_first_token: '首个词元', first_frame_published: '首个声音' },
  shown: {
    idle: ['准备就绪', '按下“呼叫”，直接开口提问。'],
    microphone: ['请允许麦克风', '浏览器会询问本页能否使用麦克风，请选择允许。'],
    dialling: ['正在呼叫', '正在寻找空闲线路。'],
    key: ['访问密钥', ''],
    returning: ['正在返回', '正在接回您刚才的通话。'],
    queued: ['线路全忙', '轮到您时会自动接通，请不要关闭本页。'],
    ringing: ['正在接通', '对方马上应答。'],
    reconnecting: ['正在重新连接', '连接中断了。请稍候，恢复后通话会继续。'],
    listening: ['正在听', '请讲。'],
    thinking: ['正在思考', '马上回答您。'],
    speaking: ['正在说话', '您可以随时打断。'],
    ended: ['通话结束', ''],
  },
  endedByCaller: '您已挂断。',
  endedByAgent: '对方结束了通话。',
  ended: {
    caller_left: '您已离开通话。',
    caller_absent: '您离线太久，通话已结束。',
    idle: '很久没有人说话，通话已结束。',
    longest_call: '通话已达到最长时间。需要的话请再次呼叫。',
    agent_stopping: '服务正在停止，通话因此结束。请稍后再次呼叫。',
    registry_lost: '服务失去了线路登记，通话因此结束。请再次呼叫。',
    worker_lost: '语音或语言服务中断且未能恢复，通话因此结束。请再次呼叫。',
    media_lost: '媒体服务中断且未能恢复，通话因此结束。请再次呼叫。',
    goodbye: '通话已结束，再见。',
    failed: '服务出了故障，通话因此结束。请再次呼叫。',
  },
  problems: {
    microphone_insecure: [
      '浏览器只允许安全页面使用麦克风，而本页不是通过 TLS 打开的。',
      '请用 https:// 打开，或在本机上用 http://localhost 打开。',
    ],
    microphone_unsupported: ['此浏览器不向网页提供麦克风。', '请换用新版浏览器。'],
    microphone_refused: ['本页未获准使用麦克风。', '请在地址栏旁的网站设置（以及系统隐私设置）中允许，然后重试。'],
    microphone_missing: ['没有找到麦克风。', '请接上或打开麦克风，然后重试。'],
    microphone_busy: ['麦克风无法启动，可能正被其他程序使用。', '请关闭那个程序或换一个麦克风，然后重试。'],
    microphone_failed: ['麦克风没有启动（{message}）。', '请重试，或换一个麦克风。'],
    microphone_lost: ['麦克风断开了：被拔出或被系统收回。', '请在下方重新打开，或换一个麦克风。'],
    full: ['线路全忙，排队也已满。', '请稍后再试。'],
    unavailable: ['服务暂时无法接听：{message}', '请稍后再试。'],
    bad_request: ['服务不接受本页的请求：{message}', '请刷新页面后再试。'],
    call_gone: ['那次通话已在本页离开期间结束。', '您可以随时再次呼叫。'],
    too_many_tries: ['您的地址尝试次数过多。', '请稍等片刻再试。'],
    unreachable: ['服务没有应答。', '请检查网络，并确认服务正在运行（“callbox status”），然后重试。'],
    odd_reply: ['入口可达，但后面的服务没有应答（HTTP {message}）。', '服务可能正在启动，请稍后再试。管理者可查看 “callbox status”。'],
    page_outdated: ['本页有一部分未能加载。', '请刷新页面后再次呼叫。'],
    signal_blocked: ['无法接通：媒体服务没有应答（{message}）。', '请重试。若仍如此，网络或代理可能阻止了 WebSocket。'],
    media_blocked: [
      '呼叫已接通，但您与服务之间的声音无法传输。',
      '可能被防火墙或 VPN 阻断：请换一个网络，或请管理者开放媒体端口。',
    ],
    agent_late: ['助手不在通话中。', '您可以再等一会儿，或挂断后再次呼叫。'],
    link_lost: ['连接中断且未能恢复。', '请检查网络，然后再次呼叫。'],
    elsewhere: ['此通话正在另一个标签页或窗口中进行。', '请关闭本页，或从这里再次呼叫。'],
    unexpected: ['本页出了问题：{message}', '请刷新页面后再次呼叫。'],
  },
}

/** `languages` in the reader's order of preference. */
export function wordsFor(languages: readonly string[]): Words {
  for (const language of languages) {
    if (/^zh\b/i.test(language)) return zh
    if (/^en\b/i.test(language)) return en
  }
  return en
}

export function fill(template: string, values: Record<string, string | number> = {}): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? '')).trim()
}
