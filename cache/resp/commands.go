package resp

// traits of a command.
type traits uint16

const (
	noAuth          traits = 1 << iota // may be sent before AUTH
	inMulti                            // is carried out at once although MULTI gathers
	notInMulti                         // refused in MULTI
	whileSubscribed                    // may be sent by a RESP2 client that has subscribed
	writes                             // for COMMAND
	fast                               // for COMMAND
)

// command is what there is to know about one. Exactly one of plan and run is set; read may stand beside plan.
type command struct {
	name  string // in lower case
	arity int    // with the name; negative: at least so many
	traits
	first, last, step int // where its keys are, for COMMAND

	// plan turns the arguments into ops that can be carried out in a step with others.
	plan func(p *plan, args [][]byte) planned
	// read answers from this node's memory, outside MULTI.
	read func(c *conn, args [][]byte)
	// run is everything else.
	run func(c *conn, args [][]byte) error
}

func (c *command) has(t traits) bool { return c.traits&t != 0 }

// longestName is that of the command with the longest name, or more.
const longestName = 16

// find returns the command of this name, in whatever case; nil if there is none.
func find(name []byte) *command {
	if len(name) > longestName {
		return nil
	}
	var lower [longestName]byte
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	return table[string(lower[:len(name)])]
}

// table is every command by its name. It is filled by init, since COMMAND lists it.
var table = map[string]*command{}

// commandExec is named for it alone is carried out in a MULTI that is broken.
var commandExec = command{name: "exec", arity: 1, traits: inMulti, run: (*conn).exec}

func init() {
	for _, group := range [][]command{stringCommands, keyCommands, expiryCommands, connectionCommands, serverCommands, channelCommands, transactionCommands} {
		for i := range group {
			table[group[i].name] = &group[i]
		}
	}
	table["exec"] = &commandExec
}

// Redis's words for what is wrong with arguments.
const (
	errSyntax     = "ERR syntax error"
	errNotInteger = "ERR value is not an integer or out of range"
)

// failed is a plan that is an error.
func failed(text string) planned { return planned{fail: text} }

// Answers that several commands have in common.

func answerOK(w *writer, _ []Result, _ planned) { w.ok() }

// answerDone is 1 if the op was carried out, else 0.
func answerDone(w *writer, rs []Result, _ planned) { w.flag(rs[0].Done) }

// answerSum is how many ops were carried out.
func answerSum(w *writer, rs []Result, _ planned) {
	n := 0
	for _, r := range rs {
		if r.Done {
			n++
		}
	}
	w.integer(int64(n))
}

// answerFound is how many keys there were.
func answerFound(w *writer, rs []Result, _ planned) {
	n := 0
	for _, r := range rs {
		if r.Found {
			n++
		}
	}
	w.integer(int64(n))
}

func answerOld(w *writer, rs []Result, _ planned) { w.value(rs[0].Old, rs[0].Found) }

func answerOlds(w *writer, rs []Result, _ planned) {
	w.array(len(rs))
	for _, r := range rs {
		w.value(r.Old, r.Found)
	}
}

func answerNumber(w *writer, rs []Result, p planned) {
	w.integer(rs[0].Number)
}

// upper tells whether arg is word, which is in upper case, in whatever case.
func upper(arg []byte, word string) bool {
	if len(arg) != len(word) {
		return false
	}
	for i, c := range arg {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}
