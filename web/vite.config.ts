import { defineConfig } from 'vitest/config'

export default defineConfig({
  base: './', // the page may be served under any path
  build: {
    target: 'es2022',
    // The page's policy forbids data: URLs and inline code
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700, // livekit-client, loaded beside the page
  },
  // For `npm run dev` in front of a running box
  server: {
    proxy: {
      '/api': 'http://127.0.0.1:8080',
      '/rtc': { target: 'ws://127.0.0.1:8080', ws: true },
    },
  },
  test: { include: ['tests/**/*.test.ts'] },
})
