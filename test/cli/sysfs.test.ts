import { describe, expect, it } from 'vitest';
import { run } from '../../src/cli/verbs/sysfs.ts';
import { captureIo } from '../support/capture-io.ts';

async function sysfs(
  ...[operands, options = {}]: [readonly string[], Record<string, string | boolean | readonly string[]>?]
): Promise<{ code: number; lines: readonly string[]; errors: readonly string[] }> {
  const io = captureIo();
  const code = await run(operands, options, io);
  return { code, lines: io.lines, errors: io.errors };
}

const VERSION = '/sys/devices/faux/tdx_host/version';
const HOTPLUG = '/sys/firmware/tdx/policy/hotplug';

describe('tdxlab sysfs', () => {
  it('prints the value of one file, and what is below a directory', async () => {
    expect(await sysfs(['spr-256g-2node', VERSION])).toEqual({ code: 0, lines: ['1.5.05'], errors: [] });
    const { lines } = await sysfs(['spr-256g-2node', '/sys/devices/faux/']);
    expect(lines).toEqual([`${VERSION}: 1.5.05`]);
  });

  it('says no where a file cannot be read or is not there', async () => {
    const unread = await sysfs(['emr-256g-4node', VERSION]);
    expect([unread.code, unread.lines]).toEqual([1, ['ENXIO: the TDX module is not initialised']]);
    const absent = await sysfs(['spr-256g-2node', '/sys/nothing']);
    expect([absent.code, absent.lines, absent.errors[0]]).toEqual([
      1,
      [],
      'tdxlab: ENOENT: /sys/nothing: no such file',
    ]);
  });

  it('writes knobs, and says why one cannot be written', async () => {
    const written = await sysfs(['spr-256g-2node', HOTPLUG], { write: 'allow', json: true });
    expect(JSON.parse(written.lines.join('\n'))).toEqual([{ path: HOTPLUG, mode: '644', value: 'allow' }]);
    const late = await sysfs(['spr-256g-2node', '/sys/firmware/tdx/policy/holes'], { write: 'cmr' });
    expect([late.code, late.errors[0]]).toEqual([1, expect.stringMatching(/^tdxlab: EBUSY: the knob holes/)]);
    const readOnly = await sysfs(['spr-256g-2node', VERSION], { write: '2' });
    expect([readOnly.code, readOnly.errors[0]]).toEqual([1, expect.stringMatching(/^tdxlab: EACCES/)]);
  });
});
