import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { KnobName } from '../../../src/kernel/policy/kernel-policy.ts';
import { formatKnob, KNOB_NAMES, KNOBS } from '../../../src/kernel/policy/knobs.ts';

const DOCUMENT = fileURLToPath(new URL('../../../docs/policies.md', import.meta.url));

const INTRODUCTION = `# Policies

Every choice that a kernel makes on the TDX host path is a knob. Each value was argued for by somebody, and against by
somebody else; \`test/kernel/policy/\` and \`test/kvm/backends/tdx/on-error.test.ts\` show both happening. Knobs are files
under \`/sys/firmware/tdx/policy\` and arguments of \`--policy knob=value\`; the defaults, first in each list, are what Linux
7.2 does. This page is made from the table of knobs (\`src/kernel/policy/\`).
`;

const CHANGES = {
  'any-time': 'May change any time.',
  'before-enabling': 'Fixed once initialisation of the module has begun (EBUSY).',
};

function section(knob: KnobName): string {
  const { title, changes, values } = KNOBS[knob];
  const items = values.map(({ value, meaning, by, why, weakness }, i) => {
    const name = `\`${formatKnob(value)}\`${i === 0 ? ' (default)' : ''}`;
    return `- ${name}: ${meaning}\n  - For it: ${why} (${by})\n  - Against it: ${weakness}`;
  });
  return [
    `## ${knob}`,
    `${title[0]!.toUpperCase()}${title.slice(1)}. ${CHANGES[changes]}`,
    ...(items.length > 0 ? [items.join('\n')] : []),
  ].join('\n\n');
}

describe('docs/policies.md', () => {
  it('is the table of knobs; `vitest run -u` writes it anew', async () => {
    const text = `${[INTRODUCTION.trimEnd(), ...KNOB_NAMES.map(section)].join('\n\n')}\n`;
    await expect(text).toMatchFileSnapshot(DOCUMENT);
  });
});
