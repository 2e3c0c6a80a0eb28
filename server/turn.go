package server

import (
	"errors"
	"time"

	tokenbrokerv1 "github.com/tokenbroker/tokenbroker/proto/tokenbroker/v1"
)

// inTurn does something that sends, when whoever else sends is done.
func (sub *subscription) inTurn(do func() error) error {
	sub.turn <- struct{}{}
	defer sub.release()
	return do()
}

func (sub *subscription) sendInTurn(m *tokenbrokerv1.SubscribeResponse) error {
	return sub.inTurn(func() error { return sub.send(m) })
}

// acquire takes the turn if it is free. If not, whoever has it looks at the feed once more.
func (sub *subscription) acquire() bool {
	for range 2 { // the second time for one who gave it back before it could see
		select {
		case sub.turn <- struct{}{}:
			sub.again.Store(false)
			return true
		default:
			sub.again.Store(true)
		}
	}
	return false
}

func (sub *subscription) release() {
	<-sub.turn
	if sub.again.Swap(false) {
		sub.s.senders.ready(sub)
	}
}

// deliver sends all that the feed has, unless somebody else does. The handler is told if that fails.
func (sub *subscription) deliver(by *sender) (did bool) {
	sub.waiting.Store(false)
	if !sub.acquire() {
		return false
	}
	defer sub.release()
	if sub.over {
		return false
	}
	err := sub.drainBy(by)
	if err != nil {
		sub.over = true
		sub.failed <- err
	}
	return true
}

func (sub *subscription) drainBy(w *sender) error {
	if w == nil {
		return sub.drainSafely()
	}
	sub.by = w
	w.turnTo(sub)
	err := sub.drainSafely()
	w.turnTo(nil)
	sub.by = nil
	if w.caught.Load() {
		sub.slow.Stop()
	}
	return err
}

// drainSafely is drain for a goroutine that no handler's recovery watches over.
func (sub *subscription) drainSafely() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = sub.s.caught(sub.out.Context(), p)
		}
	}()
	return sub.drain()
}

// deliverAlone is deliver in a goroutine of the stream's own. A reader that takes all without holding it up has caught up.
func (sub *subscription) deliverAlone() {
	began := time.Now()
	if did := sub.deliver(nil); !did {
		return
	}
	if time.Since(began) < stuckAfter && sub.lagging.CompareAndSwap(true, false) {
		sub.call.outlet.slower(-1)
	}
}

// held notes that the reader holds up a sender, and how long it may.
func (sub *subscription) held() {
	if sub.lagging.CompareAndSwap(false, true) {
		sub.call.outlet.slower(1)
	}
	sub.slow.Reset(max(0, sub.s.cfg.Limits.SlowReader-stuckAfter))
}

// cut ends a connection whose reader is too slow.
func (sub *subscription) cut() {
	sub.tooSlow.Store(true)
	_ = sub.call.cut()
}

// send sends a message under the slow reader's clock: a send can't be probed for blocking, so the connection is cut under one that is.
// A sender is looked after, and needs no clock for each.
func (sub *subscription) send(m any) error {
	if w := sub.by; w == nil || w.caught.Load() {
		sub.slow.Reset(sub.s.cfg.Limits.SlowReader)
		defer sub.slow.Stop()
	} else {
		w.begun.Add(1)
	}
	err := sub.out.SendMsg(m)
	if err != nil && sub.tooSlow.Load() {
		return errors.Join(errSlowReader, err)
	}
	return err
}
