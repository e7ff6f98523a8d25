// A guest in Go that does what its runtime may do badly: `tests/go.rs` says what must come of each.
//
// It obeys the text of each message, and forwards what it does not know. What it found out it emits.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"tidemill.dev/plugin"
	"tidemill.dev/plugin/state"
)

func init() {
	plugin.Export(func(*plugin.Setup) (plugin.Plugin, error) {
		return plugin.Func(obey), nil
	})
}

func main() {}

// kept is garbage that is not garbage yet.
var kept [][]byte

func obey(m plugin.Message, out *plugin.Outcome) error {
	text := m.String()
	if len(text) > 64 {
		text = "bulk"
	}
	switch command, argument, _ := strings.Cut(text, ":"); command {
	case "deadlock":
		<-make(chan int)
	case "exit":
		os.Exit(len(argument))
	case "recurse":
		out.Emit(m).Int(int64(recurse(1)))
	case "panic":
		switch argument {
		case "long":
			panic("a long panic " + strings.Repeat("żółw ", 1000))
		case "lines":
			panic("a panic of\n" + strings.Repeat("~", 10_000) + "\nlines")
		}
		panic("a panic that was asked for")
	case "recover":
		out.Emit(m).Text(recovered())
	case "spin":
		for {
		}
	case "bomb":
		for {
			kept = append(kept, make([]byte, 1<<20))
		}
	case "print":
		fmt.Println("printed to standard output,\nin two lines")
		println("printed to standard error")
		fmt.Println("no UTF-8: \xff\xc3( żółw 🐢")
		fmt.Print("without an end")
	case "long":
		fmt.Println(strings.Repeat("~", 10_000))
	case "sleep":
		start := time.Now()
		time.Sleep(time.Hour)
		out.Emit(m).Text(time.Since(start).Round(time.Second).String())
	case "timeout":
		select {
		case <-make(chan int):
		case <-time.After(time.Minute):
			out.Emit(m).Text("in time")
		}
	case "goroutines":
		out.Emit(m).Int(sum())
	case "file":
		_, err := os.ReadFile("/etc/passwd")
		out.Emit(m).Text(err.Error())
	case "clock":
		out.Emit(m).Int(time.Now().UnixMicro())
	case "random":
		out.Emit(m).Int(rand.Int63())
	case "remember":
		return state.Set("value", make([]byte, number(argument)))
	case "recall":
		total := 0
		for range number(argument) {
			value, _ := state.Get("value")
			total += len(value)
		}
		out.Emit(m).Int(int64(total))
	case "bulk":
		// Garbage, so that a collection may begin at any allocation, that of the next batch too.
		kept = [][]byte{make([]byte, 1<<20)}
		out.Emit(m).Bytes(m.Bytes())
	default:
		out.Forward(m)
	}
	return nil
}

func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		panic(err)
	}
	return n
}

func recurse(depth int) int {
	var frame [256]byte
	frame[depth%256] = 1
	return recurse(depth+1) + int(frame[0])
}

func recovered() (text string) {
	defer func() { text = fmt.Sprint("recovered: ", recover()) }()
	var nowhere *plugin.Setup
	nowhere.Times()
	return "nothing to recover"
}

func sum() (total int64) {
	var group sync.WaitGroup
	numbers := make(chan int64)
	for worker := range int64(10) {
		group.Go(func() {
			for number := range int64(100) {
				runtime.Gosched()
				numbers <- worker*100 + number
			}
		})
	}
	go func() {
		group.Wait()
		close(numbers)
	}()
	for number := range numbers {
		total += number
	}
	return total
}
