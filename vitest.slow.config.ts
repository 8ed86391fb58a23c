import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.slow.test.ts'],
    setupFiles: ['test/support/seed.ts'],
    env: { TDXLAB_FRESH_SEED: '1' },
    testTimeout: 1_200_000,
    pool: 'forks',
  },
});
