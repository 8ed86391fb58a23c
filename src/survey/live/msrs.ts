/** Model-specific registers in which firmware leaves what it set up for TDX. */
import { closeSync, openSync, readSync } from 'node:fs';
import { attempt, type Reading } from './reading.ts';

/** Numbers of the registers that are read (Intel SDM volume 4; SEAMRR: the specification of the SEAM loader). @public */
export const HOST_MSRS = {
  IA32_FEATURE_CONTROL: 0x3a,
  IA32_MKTME_KEYID_PARTITIONING: 0x87,
  IA32_MTRRCAP: 0xfe,
  IA32_VMX_BASIC: 0x480,
  IA32_TME_CAPABILITY: 0x981,
  IA32_TME_ACTIVATE: 0x982,
  IA32_SEAMRR_PHYS_BASE: 0x1400,
  IA32_SEAMRR_PHYS_MASK: 0x1401,
} as const;

/** @public */
export type MsrName = keyof typeof HOST_MSRS;

/** @internal */
export const MSR_NAMES = Object.keys(HOST_MSRS) as readonly MsrName[];

/** Where the msr driver shows the registers of the first processor. @internal */
export const MSR_DEVICE = '/dev/cpu/0/msr';

/** @public */
export type MsrReadings = ReadonlyMap<MsrName, Reading<bigint>>;

/** Reads the registers of the first processor through the msr driver; a register it lacks fails with EIO. @internal */
export function readMsrs(): MsrReadings {
  const device = attempt(() => openSync(MSR_DEVICE, 'r'));
  if (device.state !== 'read') return new Map(MSR_NAMES.map((name) => [name, device]));
  try {
    return new Map(
      MSR_NAMES.map((name) => [
        name,
        attempt(() => {
          const value = Buffer.alloc(8);
          readSync(device.value, value, 0, 8, HOST_MSRS[name]);
          return value.readBigUInt64LE();
        }),
      ]),
    );
  } finally {
    closeSync(device.value);
  }
}
