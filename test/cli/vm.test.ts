import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import type { Options } from '../../src/cli/verb.ts';
import { run as start } from '../../src/cli/verbs/start.ts';
import { run } from '../../src/cli/verbs/vm.ts';
import { measureImage } from '../../src/vmm/measure-image.ts';
import { sampleImage } from '../../src/vmm/sample-image.ts';
import { captureIo } from '../support/capture-io.ts';

const MRTD = measureImage(sampleImage()).mrtd!.get('one-pass')!;

const folder = mkdtempSync(join(tmpdir(), 'tdxlab-vm-'));
afterAll(() => rmSync(folder, { recursive: true }));
const IMAGE = join(folder, 'sample.fd');
writeFileSync(IMAGE, sampleImage().bytes);

async function vm(operands: readonly string[], options: Options = {}, columns = 100) {
  const io = captureIo(columns);
  const code = await run(operands, options, io);
  return { code, lines: io.lines, errors: io.errors };
}

describe('vm', () => {
  it('runs every technology when none is named, and compares what the host saw', async () => {
    const { code, lines } = await vm([], {}, 80);
    expect(code).toBe(0);
    const table = lines.slice(lines.findIndex((line) => line.startsWith('VM ')));
    expect(table.map((line) => line.split(/ {2,}/).join(' | '))).toEqual([
      'VM | measured | user space | kernel reads | kernel writes',
      'plain | - | the secret | the secret | -',
      'sw-protected | - | zeroes | the secret | -',
      'tdx | MRTD | zeroes | zeroes | -',
      'snp | launch digest | zeroes | noise | #PF',
      'pkvm | - | SIGBUS | #PF | #PF',
    ]);
  });

  it.each([80, 200])('shows the MRTD computed and measured, and fits %i columns', async (columns) => {
    const { code, lines } = await vm(['tdx'], { vcpus: '2', memory: '1G' }, columns);
    expect(code).toBe(0);
    const text = lines.map((line) => line.trim()).join(' ');
    expect(text.replaceAll(' ', '').split(MRTD)).toHaveLength(3);
    expect(text).toContain('built a VM with 2 vCPUs');
    expect(text).toContain('the MRTD is the one computed beforehand');
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(columns);
  });

  it('takes an image from a file, and a host', async () => {
    const { code, lines } = await vm(['tdx', 'spr-2t-2node'], { image: IMAGE });
    expect(code).toBe(0);
    expect(lines[0]).toContain('on spr-2t-2node');
  });

  it('prints JSON with what was measured, seen and given back', async () => {
    const { code, lines } = await vm(['tdx'], { json: true });
    expect(code).toBe(0);
    const { examples } = JSON.parse(lines.join('\n'));
    expect(examples).toHaveLength(1);
    expect(examples[0]).toMatchObject({
      backend: 'tdx',
      host: 'spr-256g-2node',
      ok: true,
      measurement: { name: 'MRTD', predicted: MRTD, measured: MRTD },
      end: { kind: 'power-off' },
      looks: { shared: { how: 'memory', result: '"hello, host"' } },
    });
    expect(examples[0].after).toEqual(examples[0].before);
  });

  it('shows every system call with --trace', async () => {
    const { lines } = await vm(['plain'], { trace: true }, 200);
    expect(lines).toContain('call   ioctl(3</dev/kvm>, KVM_CREATE_VM, KVM_VM_TYPE_DEFAULT) = 4');
  });

  it.each([
    [['tdx', 'emr-256g-4node'], {}, /^tdxlab: tdx: creating a VM: no VMs of type 5: .*\(EINVAL\)$/],
    [['snp', 'spr-256g-2node'], {}, /^tdxlab: snp: creating a VM: no VMs of type 4: .*\(EINVAL\)$/],
    [['tdx'], { vcpus: '1000' }, /^tdxlab: tdx: creating vCPU 224: .* 224 vCPUs .*\(EINVAL\)$/],
    [['plain'], { vcpus: '5000' }, /^tdxlab: plain: creating vCPU \d+: .*\(EMFILE\)$/],
  ])('says in one sentence what a host cannot do: %j %j', async (operands, options, sentence) => {
    const { code, errors } = await vm(operands, options);
    expect(code).toBe(1);
    expect(errors).toEqual([expect.stringMatching(sentence)]);
  });

  it.each([
    [['xen'], {}, /no VMs of the kind 'xen'; known are plain, sw-protected, tdx, snp, pkvm/],
    [['tdx', 'nowhere.dmesg'], {}, /nowhere.dmesg/],
    [['tdx'], { memory: 'much' }, /--memory takes a size/],
    [['tdx'], { memory: '16M' }, /--memory: .*at least 64 MiB/],
    [['tdx'], { memory: '100000001' }, /--memory takes a multiple of 4 KiB/],
    [['tdx'], { memory: '99999999999999T' }, /--memory takes a size/],
    [['tdx'], { vcpus: '0' }, /--vcpus takes a number from 1 on/],
    [['tdx'], { vcpus: '1.5' }, /--vcpus/],
    [['snp'], { image: IMAGE }, /--image is for tdx/],
    [[], { image: IMAGE }, /--image is for tdx/],
    [['tdx'], { image: join(folder, 'none.fd') }, /there is no such file/],
    [['tdx'], { image: folder }, /this is a folder/],
  ])('refuses %j %j in one sentence', async (operands, options, sentence) => {
    const failed = vm(operands, options);
    await expect(failed).rejects.toThrow(InputError);
    await expect(failed).rejects.toThrow(sentence);
  });
});

describe('start', () => {
  it('goes on to build, measure and run a TD on the host it brought up', async () => {
    const io = captureIo(100);
    expect(await start([], {}, io)).toBe(0);
    const from = io.lines.findIndex((line) => line.startsWith('Building, measuring and running a TD'));
    const story = io.lines.slice(from + 1, io.lines.indexOf('', from));
    expect(story.length).toBeGreaterThanOrEqual(10);
    expect(story.length).toBeLessThanOrEqual(16);
    expect(story.join('').replaceAll(' ', '')).toContain(MRTD);
    expect(story.at(-1)).toContain('pages, keys and files are all back');
    const json = captureIo();
    expect(await start([], { json: true }, json)).toBe(0);
    expect(JSON.parse(json.lines.join('\n')).td).toMatchObject({ ok: true, measurement: { measured: MRTD } });
  });
});
