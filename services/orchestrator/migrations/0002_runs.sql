-- A lease says what kind of run it is of, so that a replica knows how to drive it without reading its log.
alter table session_lease add column kind text not null default 'session';
alter table signal add column target text not null default '';
create unique index task_graph_session_idx on task_graph (tenant_id, session_id);

-- Appends events to a log and writes its summary, in one round trip and one transaction, if the lease is still held; the
-- lease stays locked until the end, so that no takeover comes between. False: it is not held, and nothing was written.
-- Releasing gives the lease up: for good when the run has ended, else until there are more signals than were taken.
create function append_log(
  p_tenant text, p_session text, p_owner text, p_fence bigint,
  p_sequences bigint[], p_kinds text[], p_payloads bytea[], p_macs bytea[],
  p_status int, p_topic_final text, p_converged boolean, p_rounds int, p_ended timestamptz, p_data bytea,
  p_release boolean, p_over boolean, p_signals_taken int, p_graph_status text
) returns boolean language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  perform 1 from session_lease
    where session_id = p_session and owner = p_owner and fence = p_fence and expires_at > clock_timestamp()
    for update;
  if not found then
    return false;
  end if;
  insert into event (tenant_id, session_id, sequence, kind, payload, mac)
    select p_tenant, p_session, e.sequence, e.kind, e.payload, e.mac
    from unnest(p_sequences, p_kinds, p_payloads, p_macs) as e(sequence, kind, payload, mac);
  update session set status = p_status, topic_final = p_topic_final, converged = p_converged, rounds_executed = p_rounds,
    ended_at = p_ended, data = p_data
    where id = p_session;
  if p_release then
    update session_lease set owner = null, expires_at = '-infinity', takeovers = 0,
      ready = not p_over and (select count(*) from signal where session_id = p_session) > p_signals_taken
      where session_id = p_session;
    if p_over then
      update task_graph set status = p_graph_status where session_id = p_session;
    end if;
  end if;
  return true;
end $$;

-- Starts a run in one round trip: the session, the first event of its log, its graph if it has one, its lease. Returns the
-- session an earlier request of this request_id started, and null when this one did.
create function start_run(
  p_tenant text, p_id text, p_topic text, p_mode text, p_strategy text, p_participants text[], p_metadata jsonb,
  p_status int, p_subject text, p_roles text[], p_request text, p_data bytea, p_started timestamptz,
  p_kind text, p_payload bytea, p_mac bytea, p_graph text, p_graph_json jsonb
) returns bytea language plpgsql as $$
declare
  earlier bytea;
begin
  perform set_config('app.tenant', p_tenant, true);
  insert into session (tenant_id, id, topic_start, topic_final, mode, strategy, participants, metadata, status,
    starter_subject, starter_roles, request_id, data, started_at)
    values (p_tenant, p_id, p_topic, p_topic, p_mode, p_strategy, p_participants, p_metadata, p_status,
      p_subject, p_roles, p_request, p_data, p_started)
    on conflict do nothing;
  if not found then
    select data into strict earlier from session where request_id = p_request;
    return earlier;
  end if;
  insert into event (tenant_id, session_id, sequence, kind, payload, mac) values (p_tenant, p_id, 1, p_kind, p_payload, p_mac);
  if p_graph is not null then
    insert into task_graph (tenant_id, id, session_id, graph_json, status)
      values (p_tenant, p_graph, p_id, p_graph_json, 'pending');
  end if;
  insert into session_lease (tenant_id, session_id, kind)
    values (p_tenant, p_id, case when p_graph is null then 'session' else 'graph' end);
  perform pg_notify('orchestrator_wake', p_id);
  return null;
end $$;

create function read_log(p_tenant text, p_session text, p_after bigint, p_limit int)
returns table (sequence bigint, kind text, payload bytea) language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  return query select e.sequence, e.kind, e.payload from event e
    where e.session_id = p_session and e.sequence > p_after order by e.sequence limit p_limit;
end $$;

create function run_starter(p_tenant text, p_session text)
returns table (starter_subject text, starter_roles text[]) language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  return query select s.starter_subject, s.starter_roles from session s where s.id = p_session;
end $$;

create function run_signals(p_tenant text, p_session text)
returns table (id text, kind text, sender text, target text) language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  return query select s.id, s.kind, s.sender, s.target from signal s
    where s.session_id = p_session order by s.created_at, s.id;
end $$;

create function versions_of_agent(p_tenant text, p_name text) returns setof bytea language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  return query select a.data from agent a where a.name = p_name;
end $$;
