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
		r.Handle("/poll", mounted(b))
		r.Handle("/poll/*", mounted(b))
		return r
	}},
	{"gin", func(b *gpoll.Broadcaster) http.Handler {
		r := gin.New()
		r.Any("/poll", gin.WrapH(mounted(b)))
		r.Any("/poll/*any", gin.WrapH(mounted(b)))
		return r
	}},
	{"gin own handlers", func(b *gpoll.Broadcaster) http.Handler {
		r := gin.New()
		r.Any("/poll", func(c *gin.Context) { b.ServeHTTP(c.Writer, c.Request) })
		r.Any("/poll/ws", func(c *gin.Context) { b.HandleWebSocket(c.Writer, c.Request) })
		r.Any("/poll/events", func(c *gin.Context) { b.HandleEvents(c.Writer, c.Request) })
		r.Any("/poll/commands", func(c *gin.Context) { b.HandleCommands(c.Writer, c.Request) })
		r.GET("/poll/client.js", gin.WrapF(b.HandleClient))
		r.GET("/poll/client/*any", gin.WrapF(b.HandleClient))
		return r
	}},
	{"echo v4", func(b *gpoll.Broadcaster) http.Handler {
		e := echo4.New()
		e.Any("/poll", echo4.WrapHandler(mounted(b)))
		e.Any("/poll/*", echo4.WrapHandler(mounted(b)))
		return e
	}},
	{"echo v5", func(b *gpoll.Broadcaster) http.Handler {
		e := echo5.New()
		e.Any("/poll", echo5.WrapHandler(mounted(b)))
		e.Any("/poll/*", echo5.WrapHandler(mounted(b)))
		return e
	}},
	{"gorilla/mux", func(b *gpoll.Broadcaster) http.Handler {
		r := mux.NewRouter()
		r.Handle("/poll", mounted(b))
		r.PathPrefix("/poll/").Handler(mounted(b))
		return r
	}},
	{"httprouter", func(b *gpoll.Broadcaster) http.Handler {
		r := httprouter.New()
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			r.HandlerFunc(method, "/poll", b.ServeHTTP)
			r.HandlerFunc(method, "/poll/ws", b.HandleWebSocket)
			r.HandlerFunc(method, "/poll/events", b.HandleEvents)
			r.HandlerFunc(method, "/poll/commands", b.HandleCommands)
		}
		r.HandlerFunc("GET", "/poll/client.js", b.HandleClient)
		r.HandlerFunc("GET", "/poll/client/*any", b.HandleClient)
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
		mux.HandleFunc("/poll/commands", b.HandleCommands)
		mux.HandleFunc("/poll/client.js", b.HandleClient)
		mux.HandleFunc("/poll/client/", b.HandleClient)
		return mux
	}},
}

// mounted is the mount as a handler, for routers that hand on a path and all below it.
func mounted(b *gpoll.Broadcaster) http.Handler {
	mux := http.NewServeMux()
	b.ListenAndBroadcast("/poll", mux)
	return mux
}
