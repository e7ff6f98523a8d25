;; What Go's runtime imports of WASI preview 1, made of what the host offers to a plugin. There are no
;; arguments, no environment, no files and no sockets; what is printed goes to the host's log, line by
;; line; the time and random numbers are the host's; to sleep moves the monotonic clock.
;;
;; The memory is the module's. 8 KiB of it are shared between this adapter, the allocator
;; (`allocator.rs`) and the Go side (`plugin-sdk/go/internal/boundary`):
;;
;;    4096  next     the allocator's: what is free of its room begins here
;;    4100  end      and ends here
;;    4104  paused   not 0: no import may be called
;;    4108  partial  not 0: something was printed that has no end of line yet
;;    4112  what is logged if the plugin calls os.Exit: address,
;;    4116  and length
;;    4120  the bytes in the buffer of standard output
;;    4124  the bytes in the buffer of standard error
;;    4128  the buffer of standard output, 2,704 bytes
;;    6832  the buffer of standard error, 2,704 bytes
;;    9536  why Go's runtime ends, 2,704 bytes
;;   12288  Go's data
(module
  (import "env" "memory" (memory 0))
  (import "tidemill:plugin/log@0.1.0" "write" (func $log (param $level i32) (param $text i32) (param $length i32)))
  (import "tidemill:plugin/clock@0.1.0" "now-us" (func $now_us (result i64)))
  (import "tidemill:plugin/random@0.1.0" "next" (func $random (result f64)))

  ;; The host's time when it was last asked, and by how much sleeping moved the monotonic clock, in
  ;; nanoseconds. In a replay the one is 0 at first, and Go's runtime ends where its clock is.
  (global $now (mut i64) (i64.const 0))
  (global $slept (mut i64) (i64.const 1000))
  ;; The latest time of the monotonic clock.
  (global $latest (mut i64) (i64.const 0))
  ;; Where random numbers come from while the host cannot be asked.
  (global $seed (mut i64) (i64.const 0x2545f4914f6cdd1d))
  ;; Whether anything was printed to standard error.
  (global $spoke (mut i32) (i32.const 0))
  ;; The length of what Go's runtime says of why it ends, which is logged with its place in package main. That is in
  ;; the trace that follows, of which nothing else is told: 0 before it, 1 in it, 2 in a frame of main, 3 when all is
  ;; logged. The trace has no end: the runtime traps behind its last line.
  (global $reason (mut i32) (i32.const 0))
  (global $trace (mut i32) (i32.const 0))
  ;; Whether what is in the buffer of standard error goes on with a line that was longer than the buffer.
  (global $goes_on (mut i32) (i32.const 0))

  ;; For the Go side.

  (func (export "tidemill_room") (result i32) (i32.const 4096))

  ;; Logs what has no end of line yet.
  (func $end_lines (export "tidemill_end_lines")
    (call $flush (i32.const 4120) (i32.const 4128) (i32.const 2))
    (call $flush (i32.const 4124) (i32.const 6832) (i32.const 3))
    (call $tell_reason)
    (global.set $trace (i32.const 0))
    (global.set $goes_on (i32.const 0))
    (i32.store (i32.const 4108) (i32.const 0)))

  ;; Printing.

  (func (export "fd_write") (param $fd i32) (param $pieces i32) (param $count i32) (param $written i32) (result i32)
    (local $total i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1))
      (then (return (i32.const 8)))) ;; badf
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (if (i32.eq (local.get $fd) (i32.const 1))
          (then (call $print (i32.const 4120) (i32.const 4128) (i32.const 2)
            (i32.load (local.get $pieces)) (i32.load offset=4 (local.get $pieces))))
          (else
            (global.set $spoke (i32.const 1))
            (call $print (i32.const 4124) (i32.const 6832) (i32.const 3)
              (i32.load (local.get $pieces)) (i32.load offset=4 (local.get $pieces)))))
        (local.set $total (i32.add (local.get $total) (i32.load offset=4 (local.get $pieces))))
        (local.set $pieces (i32.add (local.get $pieces) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $total))
    (i32.store (i32.const 4108)
      (i32.or
        (i32.or (global.get $reason) (global.get $trace))
        (i32.or (i32.load (i32.const 4120)) (i32.load (i32.const 4124)))))
    (i32.const 0))

  ;; Appends bytes to a buffer, and logs it at each end of line and when it is full. While no import may
  ;; be called it keeps what there is room for.
  (func $print (param $used i32) (param $buffer i32) (param $level i32) (param $from i32) (param $count i32)
    (local $byte i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $byte (i32.load8_u (local.get $from)))
        (if (i32.and (i32.eq (local.get $byte) (i32.const 10)) (i32.eqz (i32.load (i32.const 4104))))
          (then
            (call $flush (local.get $used) (local.get $buffer) (local.get $level))
            (if (i32.eq (local.get $level) (i32.const 3)) (then (global.set $goes_on (i32.const 0)))))
          (else
            (if (i32.ge_u (i32.load (local.get $used)) (i32.const 2704))
              (then
                (br_if $done (i32.load (i32.const 4104)))
                (call $flush (local.get $used) (local.get $buffer) (local.get $level))
                (if (i32.eq (local.get $level) (i32.const 3)) (then (global.set $goes_on (i32.const 1))))))
            (i32.store8 (i32.add (local.get $buffer) (i32.load (local.get $used))) (local.get $byte))
            (i32.store (local.get $used) (i32.add (i32.load (local.get $used)) (i32.const 1)))))
        (local.set $from (i32.add (local.get $from) (i32.const 1)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next))))

  ;; Logs what is in a buffer, if there is anything.
  (func $flush (param $used i32) (param $buffer i32) (param $level i32)
    (local $length i32)
    (local.set $length (i32.load (local.get $used)))
    (if (local.get $length)
      (then
        (call $clean (local.get $buffer) (i32.add (local.get $buffer) (local.get $length)))
        (i32.store (local.get $used) (i32.const 0))
        (if (i32.eq (local.get $level) (i32.const 3))
          (then (if (call $is_of_end (local.get $buffer) (local.get $length)) (then (return)))))
        (call $log (local.get $level) (local.get $buffer) (local.get $length)))))

  ;; Whether a line is one in which Go's runtime says why it ends, or where, and is taken in.
  (func $is_of_end (param $line i32) (param $length i32) (result i32)
    (local $first i32)
    (if (i32.eq (global.get $trace) (i32.const 3)) (then (return (i32.const 1))))
    (if (global.get $goes_on)
      (then
        (if (i32.eqz (global.get $trace))
          (then (if (global.get $reason) (then (call $add (local.get $line) (local.get $length))))))
        (return (i32.or (global.get $reason) (global.get $trace)))))
    (local.set $first (i32.load8_u (local.get $line)))
    (if (i32.eqz (global.get $reason))
      (then
        (if (i32.eqz (call $is_fatal (local.get $line) (local.get $length))) (then (return (i32.const 0))))
        (call $add (local.get $line) (local.get $length))
        (return (i32.const 1))))
    (if (i32.eqz (global.get $trace))
      (then
        ;; A message of several lines has tabs before those that follow; a signal stands in brackets.
        (if (i32.eq (local.get $first) (i32.const 9))
          (then
            (i32.store8 (local.get $line) (i32.const 32))
            (call $add (local.get $line) (local.get $length))
            (return (i32.const 1))))
        (if (i32.eq (local.get $first) (i32.const 91)) (then (return (i32.const 1))))
        ;; `goroutin`, `runtime`
        (if (i32.or
              (call $begins (local.get $line) (i64.const 0x6e6974756f726f67) (i64.const -1))
              (call $begins (local.get $line) (i64.const 0x656d69746e7572) (i64.const 0xff_ffff_ffff_ffff)))
          (then
            (global.set $trace (i32.const 1))
            (return (i32.const 1))))
        ;; No trace follows: somebody else has printed it.
        (call $tell_reason)
        (return (call $is_of_end (local.get $line) (local.get $length)))))
    ;; `tidemill`: the frames that follow are not the plugin's own.
    (if (call $begins (local.get $line) (i64.const 0x6c6c696d65646974) (i64.const -1))
      (then (call $end_trace) (return (i32.const 1))))
    (if (i32.and (i32.eq (global.get $trace) (i32.const 2)) (i32.eq (local.get $first) (i32.const 9)))
      (then
        (call $add_place (local.get $line) (i32.add (local.get $line) (local.get $length)))
        (call $end_trace)
        (return (i32.const 1))))
    ;; `main.`
    (global.set $trace
      (i32.add (i32.const 1) (call $begins (local.get $line) (i64.const 0x2e6e69616d) (i64.const 0xff_ffff_ffff))))
    (i32.const 1))

  (func $end_trace
    (call $tell_reason)
    (global.set $trace (i32.const 3)))

  ;; Whether a line begins with `panic: ` or `fatal er`, as those do in which Go's runtime says why it ends. They are
  ;; errors, which the host takes for the reason of the trap that follows.
  (func $is_fatal (param $line i32) (param $length i32) (result i32)
    (i32.and
      (i32.ge_u (local.get $length) (i32.const 8))
      (i32.or
        (call $begins (local.get $line) (i64.const 0x203a63696e6170) (i64.const 0xff_ffff_ffff_ffff))
        (call $begins (local.get $line) (i64.const 0x7265206c61746166) (i64.const -1)))))

  (func $begins (param $line i32) (param $beginning i64) (param $mask i64) (result i32)
    (i64.eq (i64.and (i64.load (local.get $line)) (local.get $mask)) (local.get $beginning)))

  ;; Adds to the reason what there is room for, which leaves some for the place. What is cut ends in three points.
  (func $add (param $from i32) (param $count i32)
    (local $room i32)
    (if (i32.ge_u (global.get $reason) (i32.const 2400)) (then (return)))
    (local.set $room (i32.sub (i32.const 2400) (global.get $reason)))
    (if (i32.le_u (local.get $count) (local.get $room))
      (then (call $append (local.get $from) (local.get $count)))
      (else
        (call $append (local.get $from) (local.get $room))
        (i32.store (i32.add (i32.const 9536) (global.get $reason)) (i32.const 0x2e2e2e)) ;; `...`
        (global.set $reason (i32.add (global.get $reason) (i32.const 3))))))

  (func $append (param $from i32) (param $count i32)
    (memory.copy (i32.add (i32.const 9536) (global.get $reason)) (local.get $from) (local.get $count))
    (global.set $reason (i32.add (global.get $reason) (local.get $count))))

  ;; Adds the place of a frame, as ` (at plugin.go:12)`: of `\tfolder/plugin.go:12 +0x5` what is before the space and
  ;; behind the last slash before it.
  (func $add_place (param $at i32) (param $end i32)
    (local $start i32)
    (local.set $start (i32.add (local.get $at) (i32.const 1)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (br_if $done (i32.eq (i32.load8_u (local.get $at)) (i32.const 32)))
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 47))
          (then (local.set $start (i32.add (local.get $at) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    ;; A name that is longer than those of files stands for nothing.
    (if (i32.gt_u (i32.sub (local.get $at) (local.get $start)) (i32.const 290)) (then (return)))
    (i64.store (i32.add (i32.const 9536) (global.get $reason)) (i64.const 0x2074612820)) ;; ` (at `
    (global.set $reason (i32.add (global.get $reason) (i32.const 5)))
    (call $append (local.get $start) (i32.sub (local.get $at) (local.get $start)))
    (i32.store8 (i32.add (i32.const 9536) (global.get $reason)) (i32.const 41))
    (global.set $reason (i32.add (global.get $reason) (i32.const 1))))

  ;; Logs why Go's runtime ends, if it does.
  (func $tell_reason
    (if (global.get $reason)
      (then
        ;; What was cut may have lost half a character.
        (call $clean (i32.const 9536) (i32.add (i32.const 9536) (global.get $reason)))
        (call $log (i32.const 4) (i32.const 9536) (global.get $reason))
        (global.set $reason (i32.const 0)))))

  ;; Puts a question mark in place of each byte that is no part of UTF-8, which cannot cross as text.
  (func $clean (param $at i32) (param $end i32)
    (local $length i32)
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $length (call $character (local.get $at) (local.get $end)))
        (if (i32.eqz (local.get $length))
          (then
            (i32.store8 (local.get $at) (i32.const 63))
            (local.set $length (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (local.get $length)))
        (br $next))))

  ;; The length of the character at an address, in bytes; 0 if there is none.
  (func $character (param $at i32) (param $end i32) (result i32)
    (local $lead i32) (local $second i32) (local $least i32) (local $most i32) (local $length i32)
    (local.set $lead (i32.load8_u (local.get $at)))
    (if (i32.lt_u (local.get $lead) (i32.const 0x80)) (then (return (i32.const 1))))
    (if (i32.or (i32.lt_u (local.get $lead) (i32.const 0xc2)) (i32.gt_u (local.get $lead) (i32.const 0xf4)))
      (then (return (i32.const 0))))
    (local.set $length (i32.add (i32.const 2)
      (i32.add (i32.ge_u (local.get $lead) (i32.const 0xe0)) (i32.ge_u (local.get $lead) (i32.const 0xf0)))))
    (if (i32.gt_u (local.get $length) (i32.sub (local.get $end) (local.get $at)))
      (then (return (i32.const 0))))
    ;; Four first bytes narrow what the second may be.
    (local.set $least (i32.const 0x80))
    (local.set $most (i32.const 0xbf))
    (if (i32.eq (local.get $lead) (i32.const 0xe0)) (then (local.set $least (i32.const 0xa0))))
    (if (i32.eq (local.get $lead) (i32.const 0xed)) (then (local.set $most (i32.const 0x9f))))
    (if (i32.eq (local.get $lead) (i32.const 0xf0)) (then (local.set $least (i32.const 0x90))))
    (if (i32.eq (local.get $lead) (i32.const 0xf4)) (then (local.set $most (i32.const 0x8f))))
    (local.set $second (i32.load8_u offset=1 (local.get $at)))
    (if (i32.or (i32.lt_u (local.get $second) (local.get $least)) (i32.gt_u (local.get $second) (local.get $most)))
      (then (return (i32.const 0))))
    (if (i32.gt_u (local.get $length) (i32.const 2))
      (then (if (i32.ne (i32.and (i32.load8_u offset=2 (local.get $at)) (i32.const 0xc0)) (i32.const 0x80))
        (then (return (i32.const 0))))))
    (if (i32.gt_u (local.get $length) (i32.const 3))
      (then (if (i32.ne (i32.and (i32.load8_u offset=3 (local.get $at)) (i32.const 0xc0)) (i32.const 0x80))
        (then (return (i32.const 0))))))
    (local.get $length))

  ;; The end. Go's own endings (a panic, a deadlock, no memory) have status 2, and have printed why.
  (func (export "proc_exit") (param $status i32)
    (if (i32.eqz (i32.load (i32.const 4104)))
      (then
        (call $end_lines)
        (if (i32.or (i32.ne (local.get $status) (i32.const 2)) (i32.eqz (global.get $spoke)))
          (then
            (if (i32.load (i32.const 4116))
              (then (call $log (i32.const 4) (i32.load (i32.const 4112)) (i32.load (i32.const 4116)))))))))
    (unreachable))

  ;; Time.

  (func (export "clock_res_get") (param $clock i32) (param $resolution i32) (result i32)
    (i64.store (local.get $resolution) (i64.const 1000))
    (i32.const 0))

  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $time i32) (result i32)
    (if (i32.eqz (i32.load (i32.const 4104)))
      (then (global.set $now (i64.mul (call $now_us) (i64.const 1000)))))
    (if (i32.eqz (local.get $clock))
      (then (i64.store (local.get $time) (global.get $now)))
      (else
        ;; The host's time may go back, where a replay sets it. This clock never does.
        (if (i64.gt_u (i64.add (global.get $now) (global.get $slept)) (global.get $latest))
          (then (global.set $latest (i64.add (global.get $now) (global.get $slept)))))
        (i64.store (local.get $time) (global.get $latest))))
    (i32.const 0))

  ;; Every subscription is ready at once. The longest of those that wait for a time moves the clock.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $ready i32) (result i32)
    (local $longest i64)
    (i32.store (local.get $ready) (local.get $count))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (i64.store (local.get $out) (i64.load (local.get $in)))
        (i64.store offset=8 (local.get $out) (i64.const 0))
        (i64.store offset=16 (local.get $out) (i64.const 0))
        (i64.store offset=24 (local.get $out) (i64.const 0))
        (i32.store8 offset=10 (local.get $out) (i32.load8_u offset=8 (local.get $in)))
        ;; A time from now, not a point in time.
        (if (i32.and (i32.eqz (i32.load8_u offset=8 (local.get $in))) (i32.eqz (i32.load16_u offset=40 (local.get $in))))
          (then (if (i64.gt_u (i64.load offset=24 (local.get $in)) (local.get $longest))
            (then (local.set $longest (i64.load offset=24 (local.get $in)))))))
        (local.set $in (i32.add (local.get $in) (i32.const 48)))
        (local.set $out (i32.add (local.get $out) (i32.const 32)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (global.set $slept (i64.add (global.get $slept) (local.get $longest)))
    (i32.const 0))

  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; Random numbers.

  (func (export "random_get") (param $to i32) (param $count i32) (result i32)
    (local $bits i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $bits (call $random_bits))
        (i32.store8 (local.get $to) (local.get $bits))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; Eight random bits. While the host cannot be asked they come from a generator (xorshift) of our own.
  (func $random_bits (result i32)
    (if (i32.eqz (i32.load (i32.const 4104)))
      (then (return (i32.trunc_sat_f64_u (f64.mul (call $random) (f64.const 256))))))
    (global.set $seed (i64.xor (global.get $seed) (i64.shl (global.get $seed) (i64.const 13))))
    (global.set $seed (i64.xor (global.get $seed) (i64.shr_u (global.get $seed) (i64.const 7))))
    (global.set $seed (i64.xor (global.get $seed) (i64.shl (global.get $seed) (i64.const 17))))
    (i32.and (i32.wrap_i64 (global.get $seed)) (i32.const 255)))

  ;; There are no arguments and no environment.

  (func (export "args_sizes_get") (export "environ_sizes_get") (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (func (export "args_get") (export "environ_get") (param i32 i32) (result i32) (i32.const 0))

  ;; Standard input is at its end, and of the standard streams it is known what they are.

  (func (export "fd_read") (param $fd i32) (param $pieces i32) (param $count i32) (param $read i32) (result i32)
    (if (local.get $fd) (then (return (i32.const 8)))) ;; badf
    (i32.store (local.get $read) (i32.const 0))
    (i32.const 0))
  (func (export "fd_fdstat_get") (param $fd i32) (param $stat i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8)))) ;; badf
    (i64.store (local.get $stat) (i64.const 2)) ;; a character device, without flags
    (i64.store offset=8 (local.get $stat) (i64.const 0))
    (i64.store offset=16 (local.get $stat) (i64.const 0))
    (i32.const 0))

  ;; There are no other files and no sockets: what takes a descriptor has a bad one (8, badf), and what
  ;; takes a path is not allowed (76, notcapable).

  (func (export "fd_close") (export "fd_datasync") (export "fd_sync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_flags") (export "fd_filestat_get") (export "fd_prestat_get") (export "fd_renumber")
    (export "fd_tell") (export "sock_shutdown") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (export "sock_accept") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_allocate") (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_advise") (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (export "fd_pwrite") (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32)
    (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))

  (func (export "path_create_directory") (export "path_remove_directory") (export "path_unlink_file")
    (param i32 i32 i32) (result i32) (i32.const 76))
  (func (export "path_filestat_get") (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32)
    (i32.const 76))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 76))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 76))
  (func (export "path_readlink") (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 76))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 76)))
