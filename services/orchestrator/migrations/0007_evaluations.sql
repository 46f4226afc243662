-- A run of a suite. `data` is the contract's Evaluation without scores; `document` is the suite as it is run.
create table evaluation (
  tenant_id text not null,
  id text not null,
  suite text not null,
  suite_digest text not null,
  status int not null,
  document text not null,
  baseline_id text,
  starter_subject text not null,
  starter_roles text[] not null,
  request_id text,
  regression_score double precision,
  data bytea not null,
  started_at timestamptz not null,
  ended_at timestamptz,
  primary key (tenant_id, id)
);
create unique index evaluation_request_idx on evaluation (tenant_id, request_id) where request_id is not null;
create index evaluation_time_idx on evaluation (tenant_id, started_at desc, id desc);

-- One scenario, once. `data` is the contract's ScenarioScore; without it the case has not ended.
create table evaluation_case (
  tenant_id text not null,
  id text not null,
  evaluation_id text not null,
  place int not null,
  repetition int not null,
  session_id text,
  passed boolean,
  coverage_score double precision,
  novelty_score double precision,
  coherence_score double precision,
  rule_violations_count int,
  data bytea,
  primary key (tenant_id, id),
  foreign key (tenant_id, evaluation_id) references evaluation (tenant_id, id)
);
create unique index evaluation_case_place_idx on evaluation_case (tenant_id, evaluation_id, place, repetition);

-- The queue: which worker runs which case. A case that is done or needless is no longer ready.
create table evaluation_lease (
  tenant_id text not null,
  case_id text not null,
  owner text,
  fence bigint not null default 0,
  tries int not null default 0,
  expires_at timestamptz not null default '-infinity',
  ready boolean not null default true,
  ready_at timestamptz not null default clock_timestamp(),
  primary key (tenant_id, case_id)
);
create index evaluation_lease_ready_idx on evaluation_lease (ready_at) where ready;

do $$
declare
  name text;
begin
  foreach name in array array['evaluation', 'evaluation_case', 'evaluation_lease'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format(
      'create policy tenant on %I using (tenant_id = nullif(current_setting(''app.tenant'', true), ''''))', name);
  end loop;
end $$;

-- Workers claim cases of all tenants; the driver sees who runs what, and no content.
grant select, update on evaluation_lease to agentnet_orchestrator_driver;
create policy driver on evaluation_lease to agentnet_orchestrator_driver using (true);
