/** A 16550 serial port, as far as a guest needs one that prints: transmitter always empty. */
import type { PortDevice, WriteOutcome } from './devices.ts';

/** COM1. @public */
export const COM1 = 0x3f8;
const PORTS = 8;
/** Registers by their offset: transmitter, line control, line status. */
const TRANSMIT = 0;
const LINE_CONTROL = 3;
const LINE_STATUS = 5;
/** Line control: the first two registers are the baud rate divisor. */
const DIVISOR_LATCH = 0x80;
/** Line status: transmitter holding register and transmitter empty. */
const TRANSMITTER_EMPTY = 0x60;
const NEWLINE = 0x0a;

/** @public */
export class SerialPort implements PortDevice {
  readonly start: number;
  readonly ports = PORTS;
  readonly #line: (text: string) => void;
  #lineControl = 0;
  #bytes: number[] = [];

  /** `line` gets every line that the guest prints, without its end. */
  constructor(line: (text: string) => void, start = COM1) {
    this.#line = line;
    this.start = start;
  }

  in(port: number): number {
    const register = port - this.start;
    if (register === LINE_STATUS) return TRANSMITTER_EMPTY;
    return register === LINE_CONTROL ? this.#lineControl : 0;
  }

  out(port: number, value: number): WriteOutcome {
    const register = port - this.start;
    if (register === LINE_CONTROL) this.#lineControl = value;
    if (register === TRANSMIT && this.#lineControl < DIVISOR_LATCH) this.#transmit(value);
    return 'on';
  }

  #transmit(byte: number): void {
    if (byte === NEWLINE) this.#endLine();
    else this.#bytes.push(byte);
  }

  /** Ends the line that the guest has begun, if it has. */
  flush(): void {
    if (this.#bytes.length > 0) this.#endLine();
  }

  #endLine(): void {
    const text = new TextDecoder().decode(Uint8Array.from(this.#bytes));
    this.#bytes = [];
    this.#line(text);
  }
}
