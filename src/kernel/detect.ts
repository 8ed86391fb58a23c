/** Early detection on the boot CPU (Linux host rules 1.1): the first conflict leaves TDX off for the whole boot. */
import { KernelError } from '../abi/errno.ts';
import { PARTIAL_WRITE_ERRATUM } from '../machine/description.ts';
import { CpuException } from '../machine/exceptions.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import { MSR } from '../machine/platform.ts';
import type { KernelConfig } from './kernel-config.ts';
import type { LogRing } from './log.ts';

/** Errata that concern TDX. @public */
export interface Errata {
  /** A partial write to TD memory poisons it: memory must be reset with MOVDIR64B before it is used again. */
  readonly partialWriteMce: boolean;
  /** SEAMRET invalidates the current VMCS: the module cannot be updated at run time. */
  readonly seamretInvalidatesVmcs: boolean;
}

/** What detection found. @public */
export interface Detection {
  /** All private KeyIDs: `[start, start + count)`. */
  readonly keyIds: { readonly start: number; readonly count: number };
  /** The module's own KeyID, the first of them. */
  readonly globalKeyId: number;
  /** KeyIDs left for guests. */
  readonly guestKeyIds: { readonly start: number; readonly count: number };
  /** ACPI S3 was taken away from the user. */
  readonly s3Disabled: boolean;
  readonly errata: Errata;
}

/** One KeyID is the module's own, so a guest needs a second. */
const MIN_KEYIDS = 2;
/** VMX_BASIC bit 60: SEAMRET leaves the current VMCS valid. */
const VMX_BASIC_NO_SEAMRET_INVD_VMCS = 1n << 60n;

/**
 * Throws ENODEV, silently, where the BIOS gave no private KeyIDs, and with a log line for fewer than two of them
 * (ENODEV) and for hibernation (EINVAL); `registerNotifier` throws the errno of a failed registration.
 * @public
 */
export function detectTdx(
  lp: LogicalProcessor,
  config: KernelConfig,
  registerNotifier: () => void,
  log: LogRing,
): Detection {
  const keyIds = readKeyIds(lp);
  const end = keyIds.start + keyIds.count;
  log.info(`BIOS enabled: private KeyID range [${keyIds.start}, ${end})`, 'keyid-range');
  if (keyIds.count < MIN_KEYIDS) {
    log.err('initialization failed: too few private KeyIDs', 'too-few-keyids');
    throw new KernelError(
      'ENODEV',
      'too-few-keyids',
      `the BIOS gives ${keyIds.count} private KeyID; the module takes one and every TD needs one`,
      { ...keyIds, needed: MIN_KEYIDS },
    );
  }
  if (config.hibernation) {
    log.err('initialization failed: Hibernation support is enabled', 'hibernation');
    throw new KernelError(
      'EINVAL',
      'hibernation',
      'TDX and hibernation exclude each other: boot with nohibernate',
    );
  }
  try {
    registerNotifier();
  } catch (error) {
    if (error instanceof KernelError) {
      log.err(`initialization failed: memory notifier not registered (${error.number})`, 'memory-notifier');
    }
    throw error;
  }
  if (config.acpiSuspend) {
    log.info('ACPI S3 is disabled; turn TDX off in the BIOS to use it', 's3-disabled');
  }
  return {
    keyIds,
    globalKeyId: keyIds.start,
    guestKeyIds: { start: keyIds.start + 1, count: keyIds.count - 1 },
    s3Disabled: config.acpiSuspend,
    errata: {
      partialWriteMce: PARTIAL_WRITE_ERRATUM.has(lp.machine.description.cpuModel),
      seamretInvalidatesVmcs: (lp.rdmsr(MSR.VMX_BASIC) & VMX_BASIC_NO_SEAMRET_INVD_VMCS) === 0n,
    },
  };
}

/** MSR 0x87: number of shared KeyIDs in bits 31:0, of private ones in bits 63:32. */
function readKeyIds(lp: LogicalProcessor): Detection['keyIds'] {
  const none = (text: string): KernelError => new KernelError('ENODEV', 'tdx-not-enabled-by-bios', text);
  let partition: bigint;
  try {
    partition = lp.rdmsr(MSR.MKTME_KEYID_PARTITIONING);
  } catch (exception) {
    if (!(exception instanceof CpuException)) throw exception;
    throw none('the machine has no KeyID partitioning register: TDX is off in the BIOS');
  }
  const count = Number(partition >> 32n);
  if (count === 0) throw none('the BIOS gives no private KeyIDs to TDX');
  return { start: Number(partition & 0xffff_ffffn) + 1, count };
}
