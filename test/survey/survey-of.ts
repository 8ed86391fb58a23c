import { InputError } from '../../src/abi/input-error.ts';
import { readHost } from '../../src/survey/read-host.ts';
import type { Survey } from '../../src/survey/survey.ts';

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The survey of texts, named `host`, `host2`, ... */
export function surveyOf(...texts: readonly (string | Uint8Array)[]): Promise<Survey> {
  return readHost(
    texts.map((text, i) => ({
      name: i === 0 ? 'host' : `host${i + 1}`,
      bytes: typeof text === 'string' ? bytesOf(text) : text,
    })),
  );
}

/** The message of the InputError that the sources must give. */
export async function inputErrorOf(...texts: readonly (string | Uint8Array)[]): Promise<string> {
  try {
    await surveyOf(...texts);
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
  throw new Error('the input was accepted');
}

/** `start-end kind state node` of every memory range, in hexadecimal. */
export function memoryLines({ machine }: Survey): string[] {
  return machine.memory.map(
    ({ start, end, kind, state, node }) =>
      `${start.toString(16)}-${end.toString(16)} ${kind} ${state} ${node}`,
  );
}

export function noteTexts({ notes }: Survey): string {
  return notes.map((note) => `${note.source}:${note.line ?? ''} ${note.text}`).join('\n');
}

/** A small host's log, as a kernel prints it. */
export const SMALL_LOG = `[    0.000000] Linux version 6.12.0 (builder@host) #1 SMP
[    0.000000] Command line: BOOT_IMAGE=/vmlinuz root=/dev/sda1 nohibernate kvm_intel.tdx=1
[    0.000000] BIOS-provided physical RAM map:
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable
[    0.000000] BIOS-e820: [mem 0x00000000000a0000-0x00000000000fffff] reserved
[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000006fffffff] usable
[    0.000000] BIOS-e820: [mem 0x0000000070000000-0x0000000070ffffff] ACPI data
[    0.000000] BIOS-e820: [mem 0x0000000071000000-0x0000000071ffffff] ACPI NVS
[    0.000000] BIOS-e820: [mem 0x0000000072000000-0x000000008fffffff] reserved
[    0.000000] BIOS-e820: [mem 0x0000000100000000-0x000000207fffffff] usable
[    0.010000] ACPI: SRAT: Node 0 PXM 0 [mem 0x00000000-0x7fffffff]
[    0.010000] ACPI: SRAT: Node 0 PXM 0 [mem 0x100000000-0x107fffffff]
[    0.010000] ACPI: SRAT: Node 1 PXM 1 [mem 0x1080000000-0x207fffffff]
[    0.020000] CPU topo: Max. logical packages:   2
[    0.020000] CPU topo: Allowing 64 present CPUs plus 8 hotplug CPUs
[    0.030000] smpboot: CPU0: Intel(R) Xeon(R) 6780E (family: 0x6, model: 0xaf, stepping: 0x3)
[    1.000000] virt/tdx: BIOS enabled: private KeyID range [16, 64)
[    1.000100] virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.
[    9.000000] virt/tdx: Module version 1.5.16
[    9.500000] virt/tdx: 533520 KB allocated for PAMT
[    9.600000] virt/tdx: TDX-Module initialized
`;
