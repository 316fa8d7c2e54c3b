/** One input that was not what the workflow's annotations say. */
export interface FieldError {
  loc: (string | number)[];
  msg: string;
  type: string;
}

/** What a server says of a failure (RFC 9457). */
export interface Problem {
  status: number;
  type?: string | undefined;
  title?: string | undefined;
  detail?: string | undefined;
  /** The trace id that stands in the worker's log, too. */
  trace?: string | undefined;
  errors?: FieldError[];
}

/**
 * Whatever failed, on the server or on the way.
 *
 * `status` is that of the server's problem, or 0 for what went wrong on this side of the network.
 */
export class FairleadError extends Error {
  override readonly name = "FairleadError";
  readonly status: number;
  readonly detail: string;
  readonly errors: FieldError[];
  readonly trace: string | undefined;
  /** Of the message that failed: as in its frame, and as the application knows it. */
  declare readonly ref: number | undefined;
  declare readonly id: string | undefined;
  /** The close code, where a connection was closed for good. */
  declare readonly code: number | undefined;
  /** Milliseconds before the same request may be made again, where the server said so. */
  declare readonly retryAfter: number | undefined;

  constructor(
    problem: Partial<Problem>,
    more: Partial<Pick<FairleadError, "ref" | "id" | "code" | "retryAfter">> = {},
  ) {
    const { status = 0, title, detail } = problem;
    super(detail ?? title ?? `failed with status ${status}`);
    this.status = status;
    this.detail = this.message;
    this.errors = problem.errors ?? [];
    this.trace = problem.trace;
    Object.assign(this, more);
  }
}

/** The server was to stop a run, and was not reached. */
export const unreached = ({ message }: { message?: string }): FairleadError =>
  new FairleadError({ detail: `the run may go on, as no answer came: ${message}` });

/** The error of an HTTP answer that is none of those that were asked for. Reads its body. */
export async function refused(answer: Response): Promise<FairleadError> {
  const problem = await answer.json().catch(() => {}); // a proxy may say it in HTML
  const seconds = Number.parseFloat(answer.headers.get("retry-after") as string); // or a date, or none
  return new FairleadError({ ...problem, status: answer.status }, seconds >= 0 ? { retryAfter: seconds * 1000 } : {});
}
