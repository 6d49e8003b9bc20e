package stacks

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"
	"github.com/julienschmidt/httprouter"
	echo4 "github.com/labstack/echo/v4"
	echo5 "github.com/labstack/echo/v5"
	"github.com/urfave/negroni/v3"

	"github.com/corvuscrypto/gpoll"
)

// A router mounts the handlers of b at /poll, by the lines that docs/frameworks.md shows.
type router struct {
	name  string
	mount func(b *gpoll.Broadcaster) http.Handler
}

var routers = []router{
	{"net/http", func(b *gpoll.Broadcaster) http.Handler {
		mux := http.NewServeMux()
		b.ListenAndBroadcast("/poll", mux)
		return mux
	}},
	{"chi", func(b *gpoll.Broadcaster) http.Handler {
		r := chi.NewRouter()
		r.HandleFunc("/poll", b.ServeHTTP)
		r.HandleFunc("/poll/ws", b.HandleWebSocket)
		r.HandleFunc("/poll/events", b.HandleEvents)
		return r
	}},
	{"gin WrapF", func(b *gpoll.Broadcaster) http.Handler {
		r := gin.New()
		r.Any("/poll", gin.WrapF(b.ServeHTTP))
		r.Any("/poll/ws", gin.WrapF(b.HandleWebSocket))
		r.Any("/poll/events", gin.WrapF(b.HandleEvents))
		return r
	}},
	{"gin WrapH", func(b *gpoll.Broadcaster) http.Handler {
		mux := http.NewServeMux()
		b.ListenAndBroadcast("/poll", mux)
		r := gin.New()
		r.Any("/poll", gin.WrapH(mux))
		r.Any("/poll/*any", gin.WrapH(mux))
		return r
	}},
	{"gin own handler", func(b *gpoll.Broadcaster) http.Handler {
		r := gin.New()
		r.Any("/poll", func(c *gin.Context) { b.ServeHTTP(c.Writer, c.Request) })
		r.Any("/poll/ws", func(c *gin.Context) { b.HandleWebSocket(c.Writer, c.Request) })
		r.Any("/poll/events", func(c *gin.Context) { b.HandleEvents(c.Writer, c.Request) })
		return r
	}},
	{"echo v4", func(b *gpoll.Broadcaster) http.Handler {
		e := echo4.New()
		e.Any("/poll", echo4.WrapHandler(http.HandlerFunc(b.ServeHTTP)))
		e.Any("/poll/ws", echo4.WrapHandler(http.HandlerFunc(b.HandleWebSocket)))
		e.Any("/poll/events", echo4.WrapHandler(http.HandlerFunc(b.HandleEvents)))
		return e
	}},
	{"echo v5", func(b *gpoll.Broadcaster) http.Handler {
		e := echo5.New()
		e.Any("/poll", echo5.WrapHandler(http.HandlerFunc(b.ServeHTTP)))
		e.Any("/poll/ws", echo5.WrapHandler(http.HandlerFunc(b.HandleWebSocket)))
		e.Any("/poll/events", echo5.WrapHandler(http.HandlerFunc(b.HandleEvents)))
		return e
	}},
	{"gorilla/mux", func(b *gpoll.Broadcaster) http.Handler {
		r := mux.NewRouter()
		r.HandleFunc("/poll", b.ServeHTTP)
		r.HandleFunc("/poll/ws", b.HandleWebSocket)
		r.HandleFunc("/poll/events", b.HandleEvents)
		return r
	}},
	{"httprouter", func(b *gpoll.Broadcaster) http.Handler {
		r := httprouter.New()
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			r.HandlerFunc(method, "/poll", b.ServeHTTP)
			r.HandlerFunc(method, "/poll/ws", b.HandleWebSocket)
			r.HandlerFunc(method, "/poll/events", b.HandleEvents)
		}
		return r
	}},
	{"negroni", func(b *gpoll.Broadcaster) http.Handler {
		mux := http.NewServeMux()
		b.ListenAndBroadcast("/poll", mux)
		n := negroni.New(negroni.NewRecovery())
		n.UseHandler(mux)
		return n
	}},
	{"StripPrefix", func(b *gpoll.Broadcaster) http.Handler {
		inner := http.NewServeMux()
		b.ListenAndBroadcast("/events", inner)
		mux := http.NewServeMux()
		mux.Handle("/poll/", http.StripPrefix("/poll", inner))
		mux.HandleFunc("/poll", b.ServeHTTP)
		mux.HandleFunc("/poll/ws", b.HandleWebSocket)
		mux.HandleFunc("/poll/events", b.HandleEvents)
		return mux
	}},
}
