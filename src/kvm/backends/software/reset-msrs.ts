/** MSRs that guests have without protection, with what they hold after reset (Intel SDM volume 3, table 10-1). */

/** @internal */
export const RESET_MSRS: ReadonlyMap<number, bigint> = new Map([
  // IA32_TIME_STAMP_COUNTER
  [0x10, 0n],
  // IA32_APIC_BASE: enabled, at its default address
  [0x1b, 0xfee0_0800n],
  // IA32_SYSENTER_CS, ESP, EIP
  [0x174, 0n],
  [0x175, 0n],
  [0x176, 0n],
  // IA32_MISC_ENABLE: fast strings
  [0x1a0, 1n],
  // IA32_PAT
  [0x277, 0x0007_0406_0007_0406n],
  // EFER, STAR, LSTAR, CSTAR, SFMASK
  [0xc000_0080, 0n],
  [0xc000_0081, 0n],
  [0xc000_0082, 0n],
  [0xc000_0083, 0n],
  [0xc000_0084, 0n],
  // FS base, GS base, kernel GS base, TSC_AUX
  [0xc000_0100, 0n],
  [0xc000_0101, 0n],
  [0xc000_0102, 0n],
  [0xc000_0103, 0n],
]);
