// Jenkins Agent Broker: the push hook of owner @OWNER@, version @VERSION@.
//
// Tells the broker at @URL@ what enters and leaves the build queue, and does the few things that it
// answers. Everything works without it, a few seconds later. Inside the queue's lock it puts an item
// into a bounded queue, and lets a single-use agent of this owner take nothing more once it has its
// build; all else is done by one daemon thread, which outlives a broker that is away, slow or broken.
// To take it out: `agent-broker hook remove`, or remove this file and restart; running it again
// replaces the one before.

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import groovy.transform.CompileStatic
import hudson.model.Computer
import hudson.model.Executor
import hudson.model.Item
import hudson.model.Label
import hudson.model.Node
import hudson.model.Queue
import hudson.model.queue.QueueListener
import hudson.model.queue.WorkUnit
import hudson.slaves.SlaveComputer
import java.util.concurrent.ArrayBlockingQueue
import java.util.concurrent.Callable
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicLong
import java.util.logging.Level
import java.util.logging.Logger
import jenkins.model.Jenkins

@CompileStatic
class AgentBrokerHook extends QueueListener implements Runnable {
    static final int KEPT = 10000 // events that wait to be sent; those beyond are counted, and dropped
    static final int BATCH = 200
    static final int CHARACTERS = 8192 // of a label; a longer one is left to polling
    static final int ANSWER = 262144 // characters
    static final Logger LOG = Logger.getLogger('agent-broker-hook')

    final String owner
    final URL address
    private final String key
    private final String mark
    private final ArrayBlockingQueue<Object[]> events = new ArrayBlockingQueue<Object[]>(KEPT)
    private final AtomicLong lost = new AtomicLong()
    private final AgentBrokerSteps steps = new AgentBrokerSteps()
    private volatile boolean open = true
    private Thread sender
    private Map<String, Object> done = new TreeMap<String, Object>() // what is told with the next events

    AgentBrokerHook(String owner, String url, String key) {
        this.owner = owner
        this.address = new URL(url)
        this.key = key
        this.mark = '[agent-broker owner=' + owner + ' '
    }

    void begin() {
        sender = new Thread(this, 'agent-broker hook of ' + owner)
        sender.daemon = true
        sender.start()
        QueueListener.all().add(this)
    }

    void close() {
        open = false
        QueueListener.all().remove(this)
        if (sender != null) sender.interrupt()
    }

    // --- inside the queue's lock: nothing that takes time ---

    @Override void onEnterWaiting(Queue.WaitingItem item) { put('waiting', item, null) }
    @Override void onEnterBlocked(Queue.BlockedItem item) { put('blocked', item, null) }
    @Override void onEnterBuildable(Queue.BuildableItem item) { put('buildable', item, null) }

    @Override void onLeft(Queue.LeftItem item) {
        String node = null
        try {
            Computer computer = takenBy(item)
            if (computer != null) {
                node = computer.name
                if (computer instanceof SlaveComputer && isSingleUse(computer.node)) {
                    ((SlaveComputer) computer).setAcceptingTasks(false)
                }
            }
        } catch (Throwable ignored) { // a listener that throws would be in the way of others
        }
        put('left', item, node)
    }

    private void put(String kind, Queue.Item item, String node) {
        if (!events.offer([kind, item, System.currentTimeMillis(), node] as Object[])) lost.incrementAndGet()
    }

    private static Computer takenBy(Queue.LeftItem item) {
        if (item.isCancelled() || item.outcome == null) return null
        WorkUnit unit = item.outcome.primaryWorkUnit
        Executor executor = unit == null ? null : unit.executor
        return executor == null ? null : executor.owner
    }

    private boolean isOurs(Node node) {
        String text = node == null ? null : node.nodeDescription
        return text != null && text.contains(mark)
    }

    private boolean isSingleUse(Node node) {
        return isOurs(node) && node.nodeDescription.contains(' use=once]')
    }

    // --- the sender ---

    @Override void run() {
        long pause = 0L
        int failures = 0
        while (open) {
            try {
                List<Object[]> batch = new ArrayList<Object[]>()
                if (failures > 0) {
                    Thread.sleep(Math.min(10000L, 250L << Math.min(failures, 6)))
                } else {
                    Object[] first = done.isEmpty() ? events.poll(pause, TimeUnit.MILLISECONDS) : events.poll()
                    if (first != null) batch.add(first)
                }
                events.drainTo(batch, BATCH - batch.size())
                Map answer = post(JsonOutput.toJson(described(batch)))
                if (failures > 0) LOG.log(Level.INFO, 'the broker answers again')
                failures = 0
                done = acted(answer)
                Object told = answer.get('pause_ms')
                pause = told instanceof Number ? Math.max(50L, Math.min(30000L, ((Number) told).longValue())) : 5000L
            } catch (InterruptedException ended) {
                return
            } catch (Throwable error) {
                if (failures++ == 0) LOG.log(Level.INFO, 'the broker is not told of the queue for now; it polls: ' + error)
            }
        }
    }

    private Map described(List<Object[]> batch) {
        long began = System.currentTimeMillis()
        Map<String, Integer> idle = new HashMap<String, Integer>()
        List<Map> told = new ArrayList<Map>()
        for (Object[] event : batch) {
            try {
                Map one = described((String) event[0], (Queue.Item) event[1], (Long) event[2], (String) event[3], idle)
                if (one != null) told.add(one)
            } catch (Throwable odd) { // one odd item costs that item
                lost.incrementAndGet()
            }
        }
        Map<String, Object> body = new LinkedHashMap<String, Object>()
        body.put('hook', @VERSION@)
        body.put('owner', owner)
        body.put('session', Jenkins.SESSION_HASH)
        body.put('sent_ms', began)
        body.put('lost', lost.get())
        body.put('events', told)
        body.putAll(done)
        return body
    }

    private static Map described(String kind, Queue.Item item, long at, String node, Map<String, Integer> idle) {
        Queue.Task task = item.task
        Map<String, Object> told = new LinkedHashMap<String, Object>()
        told.put('event', kind)
        told.put('id', item.id)
        told.put('at_ms', at)
        told.put('flyweight', task instanceof Queue.FlyweightTask)
        if (kind == 'left') {
            told.put('node', node)
            told.put('cancelled', ((Queue.LeftItem) item).isCancelled())
            return told
        }
        Label label = item.assignedLabel
        String expression = label == null ? null : label.expression
        if (expression != null && expression.length() > CHARACTERS) return null
        told.put('label', expression)
        told.put('since_ms', item.inQueueSince)
        told.put('class', cut(task.class.name))
        told.put('name', cut(task.name))
        told.put('url', cut(task.url))
        List<String> causes = new ArrayList<String>()
        for (hudson.model.Cause cause : item.causes.take(4)) causes.add(cut(cause.shortDescription))
        told.put('causes', causes)
        if (kind == 'buildable') {
            String named = label == null ? '' : label.name
            if (!idle.containsKey(named)) {
                idle.put(named, label == null ? -1 : label.idleExecutors)
            }
            told.put('idle', idle.get(named))
            // asked last: whoever is free takes it in the moment in which it becomes buildable
            if (((Queue.BuildableItem) item).isPending()) told.put('event', 'pending')
        }
        return told
    }

    private static String cut(String text) {
        if (text == null) return ''
        return text.length() > 512 ? text.substring(0, 512) : text
    }

    private Map post(String body) {
        HttpURLConnection asked = (HttpURLConnection) address.openConnection(Proxy.NO_PROXY)
        try {
            asked.requestMethod = 'POST'
            asked.connectTimeout = 2000
            asked.readTimeout = 10000
            asked.instanceFollowRedirects = false // the key is for this address alone
            asked.useCaches = false
            asked.doOutput = true
            asked.setRequestProperty('Content-Type', 'application/json')
            asked.setRequestProperty('Authorization', 'Bearer ' + key)
            byte[] sent = body.getBytes('UTF-8')
            asked.setFixedLengthStreamingMode(sent.length)
            asked.outputStream.withCloseable { OutputStream out -> out.write(sent) }
            if (asked.responseCode != 200) throw new IOException('it answers ' + asked.responseCode)
            StringBuilder text = new StringBuilder()
            Reader reader = new InputStreamReader(asked.inputStream, 'UTF-8')
            char[] part = new char[8192]
            int count = reader.read(part)
            while (count >= 0) {
                text.append(part, 0, count)
                if (text.length() > ANSWER) throw new IOException('its answer is too long')
                count = reader.read(part)
            }
            Object told = new JsonSlurper().parseText(text.toString())
            if (!(told instanceof Map)) throw new IOException('its answer is no object')
            return (Map) told
        } finally {
            asked.disconnect()
        }
    }

    // --- what the broker answers: about agents of this owner alone ---

    private Map<String, Object> acted(Map answer) {
        Map<String, Object> results = new TreeMap<String, Object>()
        List<String> closed = new ArrayList<String>()
        List<String> busy = new ArrayList<String>()
        for (String name : names(answer.get('close'))) {
            if (closedIfIdle(name)) closed.add(name) else busy.add(name)
        }
        if (!closed.isEmpty()) results.put('closed', closed)
        if (!busy.isEmpty()) results.put('busy', busy)
        for (String name : names(answer.get('open'))) {
            SlaveComputer computer = ourComputer(name)
            if (computer != null) computer.setAcceptingTasks(true)
        }
        List<String> ended = new ArrayList<String>()
        for (String name : names(answer.get('end_steps'))) {
            SlaveComputer computer = ourComputer(name)
            if (computer != null && computer.isOffline() && steps.end(computer)) ended.add(name)
        }
        if (!ended.isEmpty()) results.put('ended', ended)
        Object lines = answer.get('say')
        if (lines instanceof List) {
            for (Object line : (List) lines) {
                if (line instanceof Map) {
                    Object id = ((Map) line).get('id')
                    Object text = ((Map) line).get('text')
                    if (id instanceof Number && text instanceof String) steps.say(((Number) id).longValue(), (String) text)
                }
            }
        }
        return results
    }

    private static List<String> names(Object told) {
        List<String> names = new ArrayList<String>()
        if (told instanceof List) {
            for (Object name : (List) told) if (name instanceof String) names.add((String) name)
        }
        return names
    }

    private SlaveComputer ourComputer(String name) {
        Computer computer = Jenkins.get().getComputer(name)
        boolean ours = computer instanceof SlaveComputer && isOurs(computer.node)
        return ours ? (SlaveComputer) computer : null
    }

    private boolean closedIfIdle(String name) {
        final SlaveComputer computer = ourComputer(name)
        if (computer == null) return false
        return Queue.withLock(new Callable<Boolean>() {
            Boolean call() {
                if (!computer.isIdle()) return false
                computer.setAcceptingTasks(false)
                return true
            }
        })
    }

    // --- once for each owner ---

    static String install(String owner, String url, String key) {
        int replaced = remove(owner)
        new AgentBrokerHook(owner, url, key).begin()
        return 'agent-broker hook @VERSION@ of ' + owner + ' is installed' + (replaced > 0 ? ', and replaces another' : '')
    }

    static int remove(String owner) {
        int removed = 0
        for (QueueListener there : new ArrayList<QueueListener>(QueueListener.all())) {
            if (there.class.name == 'AgentBrokerHook' && AgentBrokerSteps.ownerOf(there) == owner) {
                AgentBrokerSteps.close(there)
                removed++
            }
        }
        return removed
    }
}

// What needs plugins, or a class of an earlier installation: nothing of it is known when this is compiled.
class AgentBrokerSteps {
    static String ownerOf(there) { there.owner }
    static void close(there) { there.close() }

    // Print a line into the log of the run whose step waits as this item.
    void say(long id, String text) {
        try {
            def item = Queue.instance.getItem(id)
            def context = item?.task?.metaClass?.hasProperty(item.task, 'context') ? item.task.context : null
            context?.get(hudson.model.TaskListener)?.logger?.println('[agent-broker] ' + text)
        } catch (Throwable ignored) {
        }
    }

    // End the Pipeline steps on an agent that is gone for good, as Pipeline does where its node goes.
    boolean end(computer) {
        boolean any = false
        try {
            def loader = Jenkins.get().pluginManager.uberClassLoader
            def interrupted = loader.loadClass('org.jenkinsci.plugins.workflow.steps.FlowInterruptedException')
            def removed = loader.loadClass('org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$RemovedNodeCause')
            computer.executors.each { executor ->
                def task = executor.currentExecutable?.parent
                if (task?.class?.name?.endsWith('ExecutorStepExecution$PlaceholderTask')) {
                    def cause = removed.getDeclaredConstructor().newInstance()
                    task.context.onFailure(interrupted.newInstance(hudson.model.Result.ABORTED, false, cause))
                    any = true
                }
            }
        } catch (Throwable error) {
            AgentBrokerHook.LOG.log(Level.INFO, 'steps were not ended: ' + error)
        }
        return any
    }
}

@INSTALL@
