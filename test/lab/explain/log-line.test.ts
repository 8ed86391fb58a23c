import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { explain } from '../../../src/lab/explain/explain.ts';
import type { Explanation } from '../../../src/lab/explain/explanation.ts';
import { LOG_LINES } from '../../../src/lab/explain/log-line.ts';

/** Lines of today's and older kernels, with the kind each must be taken for. */
const LINES: readonly (readonly [line: string, kind: string])[] = [
  ['virt/tdx: BIOS enabled: private KeyID range [32, 64)', 'private KeyIDs found'],
  ['tdx: TDX enabled by BIOS. TDX private KeyID range: [16, 32)', 'private KeyIDs found'],
  ['tdx: TDX private KeyID: start 16, nr 16', 'private KeyIDs found'],
  ['virt/tdx: initialization failed: too few private KeyIDs available.', 'too few KeyIDs'],
  ['virt/tdx: initialization failed: Hibernation support is enabled', 'hibernation'],
  ['virt/tdx: initialization failed: register_memory_notifier() failed (-12)', 'memory notifier'],
  ['virt/tdx: initialization failed: memory notifier not registered (-12)', 'memory notifier'],
  ['virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.', 'no ACPI S3'],
  ['virt/tdx: ACPI S3 is disabled; turn TDX off in the BIOS to use it', 'no ACPI S3'],
  ['virt/tdx: TDX not supported by the host platform', 'platform not supported'],
  ['[   16.735980] tdx: Cannot enable TDX on TDX disabled platform', 'platform not supported'],
  ['[   10.348460] tdx: not enabled by BIOS.', 'SEAM range off'],
  ['[   14.036739] kvm_intel: Failed to initialize TDX module.', 'KVM goes on without TDX'],
  ['tdx: SEAMCALL failed: CPU 94: leaf 33, error 0xc000092100000122.', 'a SEAMCALL failed'],
  ['qemu-system-x86_64: vm-type tdx not supported by KVM', 'KVM has no TDs'],
  ["qemu-system-x86_64: -accel kvm: kvm-type 'tdx' not supported by KVM", 'KVM has no TDs'],
  ['qemu-system-x86_64: KVM_TDX_INIT_VM failed: Invalid argument', 'a KVM call of a VMM failed'],
  ['virt/tdx: XSAVE is required for TDX', 'CPU feature missing'],
  ['virt/tdx: MOVDIR64B is required for TDX', 'CPU feature missing'],
  ['virt/tdx: Self-snoop is required for TDX', 'CPU feature missing'],
  ['virt/tdx: module not loaded', 'module not loaded'],
  ['tdx: SEAMRR is not enabled.', 'SEAM range off'],
  [
    'virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, minor_version 5, build_date 20231008, build_num 595',
    'module identity',
  ],
  ['virt/tdx: Module version: 1.5.06', 'module identity'],
  ['virt/tdx: CMR: [0x100000, 0x6f800000)', 'convertible memory'],
  ['tdx: CMR[0]: [0x100000, 0x6f800000)', 'convertible memory'],
  ['virt/tdx: 1050644 KB allocated for PAMT', 'PAMT allocated'],
  ['virt/tdx: 1050644 KBs allocated for PAMT.', 'PAMT allocated'],
  ['tdx: 262661 pages allocated for PAMT', 'PAMT allocated'],
  ['virt/tdx: Dynamic PAMT not used: the module lacks it', 'Dynamic PAMT not used'],
  ['virt/tdx: module initialized', 'module initialised'],
  ['virt/tdx: TDX-Module initialized', 'module initialised'],
  ['tdx: TDX module initialized.', 'module initialised'],
  ['virt/tdx: frame pointer (RBP) clobber bug present, upgrade TDX module', 'frame pointer bug'],
  ['virt/tdx: the module clobbers RBP; a newer TDX module is needed', 'frame pointer bug'],
  [
    'virt/tdx: initialization failed: TDMR [0x0, 0x80000000): reserved areas exhausted.',
    'reserved areas exhausted',
  ],
  ['virt/tdx: initialization failed: TDMRs exhausted.', 'TDMRs exhausted'],
  ['virt/tdx: initialization failed: TDMR [0x40000000, 0x80000000): TDMRs exhausted.', 'TDMRs exhausted'],
  ['virt/tdx: consumed TDMRs reaching limit: 61 used out of 64', 'TDMRs run short'],
  [
    "virt/tdx: TDMR [0x0, 0x80000000): can't find local NUMA node for PAMT. Use node 0.",
    'PAMT on another node',
  ],
  ['virt/tdx: TDMR [0x0, 0x80000000): no local node for the PAMT, using node 0', 'PAMT on another node'],
  ['tdx: TDX module is shut down.', 'module shut down'],
  ['virt/tdx: module initialization failed (-28)', 'initialisation failed'],
  ['virt/tdx: TDX-Module initialization failed (-5)', 'initialisation failed'],
  ['tdx: initialization failed (-22)', 'initialisation failed'],
  [
    'smpboot: CPU0: Intel(R) Xeon(R) Platinum 8480CTDX (family: 0x6, model: 0x8f, stepping: 0x8)',
    'CPU model',
  ],
  ['virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000', 'a SEAMCALL failed'],
  ['virt/tdx: SEAMCALL (0x0000000000000021) failed: 0xc000090000000000', 'a SEAMCALL failed'],
  ['kvm_intel: SEAMCALL TDH_MNG_CREATE failed: 0x80000200000000ba', 'a SEAMCALL failed'],
  ['seamcall TDH.SYS.CONFIG failed: 0xc0000a0200000000', 'a SEAMCALL failed'],
  ['virt/tdx: TDH.SYS.DISABLE failed: 0xc000010000000000', 'a SEAMCALL failed'],
  ['kvm_intel: TDH_MNG_VPFLUSHDONE failed. HKID 33 is leaked.', 'a KeyID is lost'],
  ['kvm_intel: HKID 33 leaked', 'a KeyID is lost'],
  [
    'kvm_intel: TDH_VP_RD[MANAGEMENT.0xb] failed: 0xc0000c0200000000',
    'a VCPU field could not be read or written',
  ],
  ['virt/tdx: P-SEAMLDR: SEAMLDR.INSTALL failed: 0x8000000000020001', 'a P-SEAMLDR call failed'],
  ['RCX 0xffffffff00000001 RDX 0x0000000000000000 R8 0x0', 'registers after a failed call'],
  ['tdx: Unable to add memory [0x580000000, 0x600000000) on TDX enabled platform.', 'memory refused'],
  ['kmem dax0.0: mapping0: 0x580000000-0x5ffffffff memory add failed', 'memory refused'],
  ['virt/tdx: hot-added memory [0x580000000, 0x600000000) refused: TDX is on', 'memory refused'],
  [
    'mce: [Hardware Error]: Machine check: TDX private memory error. Possible kernel bug.',
    'poisoned private memory',
  ],
  [
    'kvm_intel: All packages need to have online CPU to create TD. Online CPU and retry.',
    'CPU of a package missing',
  ],
  [
    'kvm_intel: TDX requires all packages to have an online CPU. Delete all TDs in order to offline all CPUs of a package.',
    'CPU must stay online',
  ],
  ['virt/tdx: every package needs an online CPU while TDs exist', 'CPU must stay online'],
  ['kvm_intel: Guest access before accepting 0x7f000000 on vCPU 3', 'memory not accepted'],
  [
    'kvm_intel: Disable TDX: MAX_VCPU_PER_TD (64) smaller than number of logical CPUs (128).',
    'too many CPUs',
  ],
  ['kvm_intel: EPT is required for TDX', 'KVM lacks a feature'],
  ['kvm_intel: TDX requires TDP MMU.  Please enable TDP MMU for TDX.', 'KVM lacks a feature'],
  ['kvm_intel: APICv is required for TDX', 'KVM lacks a feature'],
  ['kvm_intel: TDX: missing uret MSR 0xc0000084', 'user-return MSR missing'],
  ['kexec: disabled on this TDX platform', 'kexec and TDX'],
  ['tdx: Guest detected', 'a guest, not a host'],
];

function readLine(line: string): Explanation {
  const [explained] = explain([line]);
  return explained!.readings[0]!;
}

describe('a log line', () => {
  it.each(LINES)('%s', (line, kind) => {
    for (const prefix of [
      '',
      '[   10.774047] ',
      '[          ] ',
      '<4>[1.5] ',
      'Nov 20 10:00:00 host kernel: ',
    ]) {
      const explanation = readLine(prefix + line);
      expect(explanation).toMatchObject({ kind: 'log', name: kind });
      expect(explanation.summary).not.toMatch(/[{}]/);
    }
  });

  it('of every kind in the table is tested here', () => {
    const tested = new Set(LINES.map(([, kind]) => kind));
    const untested = LOG_LINES.filter(({ name }) => !tested.has(name)).map(({ name }) => name);
    expect(untested).toEqual(['a line with a status']);
  });

  it('of SEAMCALL 0x22 with SYS_NOT_READY means a TDX 1.0 module', () => {
    const explanation = readLine('virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000');
    expect(explanation.parts.map(({ name }) => name)).toEqual(['TDH.SYS.RD', 'TDX_SYS_NOT_READY']);
    expect(explanation.cases).toHaveLength(1);
    expect(explanation.cases[0]!.cause).toContain('TDX 1.0');
    expect(explanation.cases[0]!.remedy).toContain('TDX 1.5 module');
    expect(explanation.data).toMatchObject({ recovery: 'module' });
  });

  it('keeps the advice of the status where the pair says nothing more', () => {
    const { parts } = readLine('SEAMCALL (0x2d) failed: 0xc0000a0200000003');
    expect(parts.map(({ name }) => name)).toEqual(['TDH.SYS.CONFIG', 'TDX_TDMR_OUTSIDE_CMRS']);
    expect(parts[1]!.cases).toHaveLength(1);
    expect(parts[1]!.data).toMatchObject({ tdmr: 3 });
  });

  it('tells pairs of one status apart by its operand', () => {
    const cause = (status: string): string | undefined =>
      readLine(`SEAMCALL (0x15) failed: ${status}`).cases[0]?.cause;
    expect(cause('0xc000010000000045')).toContain('CPUID');
    expect(cause('0xc000010000000041')).toBeUndefined();
  });

  it('with an errno lists only the places of bring-up', () => {
    const { parts } = readLine('module initialization failed (-28)');
    expect(parts).toHaveLength(1);
    expect(parts[0]).toMatchObject({ kind: 'errno', name: 'ENOSPC' });
    expect(parts[0]!.cases.map(({ where }) => where)).toEqual([
      'bring-up: reserved areas exhausted',
      'bring-up: TDMRs exhausted',
    ]);
  });

  it('counts KeyIDs, sizes and memory', () => {
    const text = (line: string): string =>
      readLine(line)
        .facts.map((fact) => fact.text)
        .join('; ');
    expect(text('private KeyID range [64, 128)')).toBe('64: KeyID 64 becomes the global one; 63');
    expect(text('CMR: [0x100000000, 0x206e000000)')).toBe('125.72 GiB');
    expect(text('1050644 KB allocated for PAMT')).toContain('256.5 GiB');
  });

  it('that is unknown but holds a status is explained by the status', () => {
    const explanation = readLine('mydriver: something odd, got 0x80000200000000ba');
    expect(explanation).toMatchObject({ name: 'a line with a status' });
    expect(explanation.parts[0]).toMatchObject({ name: 'TDX_OPERAND_BUSY' });
  });
});

const HOSTS = fileURLToPath(new URL('../../../../shared/hosts', import.meta.url));

describe.skipIf(!existsSync(HOSTS))('logs of real hosts (skipped where ../shared/hosts is absent)', () => {
  const lines = existsSync(HOSTS)
    ? readdirSync(HOSTS)
        .filter((name) => !name.endsWith('.md'))
        .flatMap((name) => readFileSync(join(HOSTS, name), 'utf8').split('\n'))
        // In the notes of these files only lines quoted from a log count.
        .filter((line) => /tdx/i.test(line) && (!line.startsWith('#') || /^# +\w*tdx: /.test(line)))
    : [];

  it('every line about TDX is recognised', () => {
    expect(lines.length).toBeGreaterThan(20);
    for (const line of lines) expect(readLine(line), line).toMatchObject({ kind: 'log' });
  });
});

describe('a line of a VMM', () => {
  it('gives the places of that call with that errno', () => {
    const { readings } = explain(['KVM_TDX_INIT_VM failed: Invalid argument'])[0]!;
    const [errno] = readings[0]!.parts;
    expect(errno).toMatchObject({ name: 'EINVAL' });
    expect(errno!.cases.map(({ where }) => where)).toEqual(['KVM_TDX_INIT_VM']);
  });
});

describe('the wording of the 2023 kernels', () => {
  it('names leaf and status', () => {
    const line = 'tdx: SEAMCALL failed: CPU 94: leaf 33, error 0xc000092100000122.';
    const { readings } = explain([line])[0]!;
    expect(readings[0]!.parts.map(({ name }) => name)).toEqual(['TDH.SYS.INIT', 'TDX_INCORRECT_MSR_VALUE']);
  });
});
