import { describe, expect, it } from 'vitest';
import { createHost } from '../../src/lab/host.ts';
import { SeamcallTracer, seamcallName } from '../../src/lab/trace.ts';
import { EMBEDDED_HOSTS } from '../../src/survey/embedded/hosts.ts';

describe('trace', () => {
  it('names leaves, versions and P-SEAMLDR', () => {
    expect(seamcallName(0x22n)).toBe('TDH.SYS.RD');
    expect(seamcallName(0x1_0021n)).toBe('TDH.SYS.INIT.v1');
    expect(seamcallName(0x8000_0000_0000_0001n)).toBe('SEAMLDR.INSTALL');
    expect(seamcallName(0xeen)).toBe('leaf 238');
  });

  it('has one line per SEAMCALL with registers by name and the status decoded', async () => {
    const { machine, kernel } = createHost(EMBEDDED_HOSTS.get('spr-256g-2node')!.machine);
    const lines: string[] = [];
    machine.seam.observer = new SeamcallTracer((line) => lines.push(line));
    await kernel.boot();
    expect(lines).toHaveLength(machine.seam.calls);
    expect(lines[0]).toMatch(/^\d+\.\d{6} lp0 TDH\.SYS\.INIT in: rax=0x21 rcx=0x0 .* out: TDX_SUCCESS rcx=/);
    const config = lines.find((line) => line.includes('TDH.SYS.CONFIG'));
    expect(config).toMatch(/rdx=0x3 r8=0x40 out: TDX_SUCCESS/);
    expect(lines.at(-1)).toMatch(/TDH\.SYS\.TDMR\.INIT in: rax=0x24 rcx=0x2080000000 .*rdx=0x4080000000/);
  });

  it('tells a call that found no module from one that it answered', async () => {
    const { machine, kernel } = createHost({
      ...EMBEDDED_HOSTS.get('spr-256g-2node')!.machine,
      module: null,
    });
    const lines: string[] = [];
    machine.seam.observer = new SeamcallTracer((line) => lines.push(line));
    await kernel.boot();
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/ lp0 TDH\.SYS\.INIT in: rax=0x21 .* out: VMFailInvalid rcx=0x0/);
  });
});
