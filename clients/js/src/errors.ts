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
  readonly ref: number | undefined;
  readonly id: string | undefined;
  /** The close code, where a connection was closed for good. */
  readonly code: number | undefined;
  /** Milliseconds before the same request may be made again, where the server said so. */
  readonly retryAfter: number | undefined;

  constructor(
    problem: Partial<Problem>,
    more: { ref?: number; id?: string; code?: number; retryAfter?: number } = {},
  ) {
    const { status = 0, title, detail } = problem;
    super(detail ?? title ?? `failed with status ${status}`);
    this.status = status;
    this.detail = this.message;
    this.errors = problem.errors ?? [];
    this.trace = problem.trace;
    this.ref = more.ref;
    this.id = more.id;
    this.code = more.code;
    this.retryAfter = more.retryAfter;
  }
}

/** The error of an HTTP answer that is none of those that were asked for. Reads its body. */
export async function refused(answer: Response): Promise<FairleadError> {
  const seconds = Number(answer.headers.get("retry-after") ?? Number.NaN);
  let problem: Partial<Problem> = {};
  if (answer.headers.get("content-type")?.includes("json")) {
    problem = await answer.json().catch(() => problem);
  } else {
    answer.body?.cancel().catch(() => {});
  }
  return new FairleadError(
    { ...problem, status: answer.ok ? 0 : answer.status },
    Number.isNaN(seconds) ? {} : { retryAfter: seconds * 1000 },
  );
}
