import { describe, expect, it } from 'vitest';
import { run as compare } from '../../../src/cli/verbs/compare.ts';
import { run as play } from '../../../src/cli/verbs/run.ts';
import { runScenario } from '../../../src/lab/scenario/engine/run-scenario.ts';
import { findScenario } from '../../../src/lab/scenario/find-scenario.ts';
import { timeline } from '../../../src/lab/scenario/timeline.ts';
import { captureIo } from '../../support/capture-io.ts';

describe('the same seed', () => {
  it('gives the same bytes of output', async () => {
    const print = async (seed: string, json: boolean): Promise<string> => {
      const io = captureIo(80);
      await play(['keyid-shortage'], { seed, json, all: true }, io);
      return io.lines.join('\n');
    };
    const first = await print('11', true);
    expect(await print('11', true)).toBe(first);
    expect(await print('12', true)).not.toBe(first);
    expect(await print('11', false)).toBe(await print('11', false));
  }, 60_000);

  it('gives the same comparison and the same drawing', async () => {
    const print = async (): Promise<string> => {
      const io = captureIo(200);
      await compare(['module-update'], {}, io);
      return io.lines.join('\n');
    };
    expect(await print()).toBe(await print());
  }, 60_000);

  it('gives the same events, which may be handed on as JSON and played again', async () => {
    const scenario = await findScenario('keyid-shortage');
    const events = timeline(scenario, 3);
    expect(timeline(scenario, 3)).toEqual(events);
    expect(timeline(scenario, 4)).not.toEqual(events);
    const few = events.slice(0, 40);
    const first = await runScenario(scenario, { seed: 3, events: few });
    const again = await runScenario(scenario, { seed: 3, events: JSON.parse(JSON.stringify(few)) });
    expect(again).toEqual(first);
  });

  it('draws every arrival apart: leaving one stream out changes no other', async () => {
    const scenario = await findScenario('keyid-shortage');
    const [stream] = scenario.arrivals;
    const both = { ...scenario, arrivals: [stream!, { ...stream!, most: 5 }] };
    const names = (all: readonly { at: number }[]): number[] => all.map(({ at }) => at);
    const alone = names(timeline(scenario, 9));
    expect(names(timeline(both, 9))).toEqual(expect.arrayContaining(alone));
  });
});
