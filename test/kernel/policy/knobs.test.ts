import { describe, expect, it } from 'vitest';
import { DEFAULT_POLICY } from '../../../src/kernel/policy/kernel-policy.ts';
import { formatKnob, KNOB_NAMES, KNOBS, knobValues, parseKnob } from '../../../src/kernel/policy/knobs.ts';

describe('knobs', () => {
  it.each(KNOB_NAMES)(
    '%s has its default first, and of every value who wanted it, why, and what was said against it',
    (knob) => {
      if (knob !== 'tdxNodes') expect(knobValues(knob)[0]).toBe(DEFAULT_POLICY[knob]);
      for (const { meaning, by, why, weakness } of KNOBS[knob].values) {
        for (const text of [meaning, why, weakness]) expect(text).toMatch(/^\p{Lu}.{8,}\.$/u);
        expect(by).not.toBe('');
      }
    },
  );

  it.each(KNOB_NAMES)('%s is written and read alike', (knob) => {
    for (const value of [DEFAULT_POLICY[knob], ...knobValues(knob)]) {
      expect(parseKnob(knob, formatKnob(value))).toEqual(value);
    }
  });

  it('take no other values, and name theirs', () => {
    expect(() => parseKnob('hotplug', 'sometimes')).toThrow(
      /hotplug takes reject-non-tdx, refuse-all.*'sometimes'/,
    );
    expect(() => parseKnob('tdxNodes', '0;1')).toThrow(/0,2/);
    expect(parseKnob('tdxNodes', '3,0,3')).toEqual([0, 3]);
  });
});
