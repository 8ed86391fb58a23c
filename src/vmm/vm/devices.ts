/** Devices of a VM: what answers its port and memory-mapped accesses. */

/** What follows a write: the guest goes on, has switched itself off, or waits while user space does something. @public */
export type WriteOutcome = 'on' | 'off' | 'stop';

/** Answers accesses to the ports [start, start + ports). @public */
export interface PortDevice {
  readonly start: number;
  readonly ports: number;
  in(port: number, size: number): number;
  out(port: number, value: number, size: number): WriteOutcome;
}

/** Answers accesses to guest physical addresses [start, end), which no slot has. @public */
export interface MmioDevice {
  readonly start: number;
  readonly end: number;
  read(gpa: number, bytes: Uint8Array): void;
  write(gpa: number, bytes: Uint8Array): WriteOutcome;
}

/** ACPI's power management control on q35: the guest writes sleep type 0 and SLP_EN to switch itself off. @public */
export const POWER_PORT = 0x604;
/** SLP_EN. @public */
export const POWER_OFF = 0x2000;

/** @public */
export const POWER_SWITCH: PortDevice = {
  start: POWER_PORT,
  ports: 2,
  in: () => 0,
  out: (_port, value) => ((value & POWER_OFF) !== 0 ? 'off' : 'on'),
};
