-- A registry of schema 0001, as sqlite3's iterdump wrote it.
PRAGMA application_id=1414481490;
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE events (
	seq INTEGER NOT NULL, 
	prev TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (prev), 
	UNIQUE (hash)
);
INSERT INTO "events" VALUES(1,'0000000000000000000000000000000000000000000000000000000000000000','1e6261b6d1fb68971b9cbaa013757cfed9ceacc6771a820b3399105e26c31573','{"action":"registered","actor":"","at":"2026-11-25T02:33:03.627106+00:00","key":"87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0","row":"496c0deaee9dc97dbf90f5d127d56a9d53aa6431405a6360b5227c1329aecaa4","table":"versions"}');
INSERT INTO "events" VALUES(2,'1e6261b6d1fb68971b9cbaa013757cfed9ceacc6771a820b3399105e26c31573','0b9d4a497cc592ea846bcd3ca3c570376739f83c3ced510eb7477ba5db0fe86e','{"action":"scored","actor":"","at":"2026-11-25T02:33:03.632704+00:00","key":1,"row":"61c262fc27c1072b49ed8beab2ff4989fe15ee7711e3b44e4a93c71c565f227a","table":"scorecards"}');
INSERT INTO "events" VALUES(3,'0b9d4a497cc592ea846bcd3ca3c570376739f83c3ced510eb7477ba5db0fe86e','84805e89ad21bc1b24c57f446a1d0bdebc9ec7bdf6c77cc78294956e076f292f','{"action":"registered","actor":"","at":"2026-11-25T02:33:03.682640+00:00","key":"024c9ce07a74a51c20252ccc2a6bab4151ac23a32d9ce926604156c80ad3a5cd","row":"8e82023f6f14e9218560a87ba3b109350ab1cc579d3e02cb31180914bc6682fb","table":"versions"}');
INSERT INTO "events" VALUES(4,'84805e89ad21bc1b24c57f446a1d0bdebc9ec7bdf6c77cc78294956e076f292f','2bdb4cee7fe0b6748849b7a9c2f2e4b7474fd9888d8ba065cf4122e8d19d6349','{"action":"scored","actor":"","at":"2026-11-25T02:33:03.685940+00:00","key":2,"row":"2587df82d0dfc2ab53e93bb68012d9706fd05cbf4b4b04c198470b9b28a40dd9","table":"scorecards"}');
INSERT INTO "events" VALUES(5,'2bdb4cee7fe0b6748849b7a9c2f2e4b7474fd9888d8ba065cf4122e8d19d6349','9bef1bf4c6a89e2569e9e3a13f931eba1e127b31e1fb68be36c1718e07d1765e','{"action":"promoted","actor":"ci","at":"2026-11-25T02:33:03.729144+00:00","key":1,"row":"88c935bed4b2357fd962975794e695c162bf57e79dfb26ed8c31ac5e23c3b147","table":"moves"}');
INSERT INTO "events" VALUES(6,'9bef1bf4c6a89e2569e9e3a13f931eba1e127b31e1fb68be36c1718e07d1765e','dbee603bd825af0aa7472be8d2129854ca678e22ccebd29c9a0e82fc86fa10f8','{"action":"promoted","actor":"ci","at":"2026-11-25T02:33:03.754312+00:00","key":2,"row":"b63be5fa5bdb88db8f04d394af918017b23dd38518c73b74e4d7da18bbf96ca4","table":"moves"}');
INSERT INTO "events" VALUES(7,'dbee603bd825af0aa7472be8d2129854ca678e22ccebd29c9a0e82fc86fa10f8','3443aa28c1c0a922d1ff56e65eab41bbb1d2c6ee1d7e0df158b739638c9923e0','{"action":"rolled back","actor":"ada","at":"2026-11-25T02:33:03.783812+00:00","key":3,"row":"876de375a3a30358f103a6067356c5e124308ce263908f107ef152c1522391cd","table":"moves"}');
CREATE TABLE moves (
	seq INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	channel TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	version TEXT, 
	previous TEXT, 
	at TEXT NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (seq), 
	FOREIGN KEY(version) REFERENCES versions (id), 
	FOREIGN KEY(previous) REFERENCES versions (id)
);
INSERT INTO "moves" VALUES(1,'tickets','production','promoted','87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0',NULL,'2026-11-25T02:33:03.729144+00:00','{"actor":"ci","at":"2026-11-25T02:33:03.729144+00:00","channel":"production","kind":"promoted","label":"tickets@1","name":"tickets","previous":null,"reason":"","seq":1,"verdict":{"baseline":"","baseline_card":"","candidate":"tiny","candidate_card":"084a499b7906fdeec15f915669f9c52e8a1360f56c4b8f0d2e79c94233cc38d1","gate":{"confidence":0.95,"guards":[],"limits":[],"margin":0.02,"requirements":[],"success":[]},"lines":[{"baseline":null,"candidate":0.5,"eval":"tickets/accuracy","high":null,"limit":null,"low":null,"n":40,"n_needed":null,"outcome":"PASS","rule":"recorded","why":"nothing to compare with"}],"notes":["Nothing to compare with: this is the first version. Floors and required evals were judged."],"outcome":"PASS","suite_digest":"suite-1"},"version":"87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0"}');
INSERT INTO "moves" VALUES(2,'tickets','production','promoted','024c9ce07a74a51c20252ccc2a6bab4151ac23a32d9ce926604156c80ad3a5cd','87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0','2026-11-25T02:33:03.754312+00:00','{"actor":"ci","at":"2026-11-25T02:33:03.754312+00:00","channel":"production","kind":"promoted","label":"tickets@2","name":"tickets","previous":"87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0","reason":"better answers","seq":2,"verdict":{"baseline":"tiny","baseline_card":"084a499b7906fdeec15f915669f9c52e8a1360f56c4b8f0d2e79c94233cc38d1","candidate":"tinker://a/sampler_weights/30","candidate_card":"ab7fcf4d3d0224a195a12a9c61a7178270e27387f3dc89cef1446f8ff6ad00d9","gate":{"confidence":0.95,"guards":[],"limits":[],"margin":null,"requirements":[],"success":["tickets"]},"lines":[{"baseline":0.5,"candidate":1.0,"eval":"tickets/accuracy","high":-0.3113591325216175,"limit":0.0,"low":-0.6410218198593348,"n":40,"n_needed":null,"outcome":"PASS","rule":"better","why":""}],"notes":[],"outcome":"PASS","suite_digest":"suite-1"},"version":"024c9ce07a74a51c20252ccc2a6bab4151ac23a32d9ce926604156c80ad3a5cd"}');
INSERT INTO "moves" VALUES(3,'tickets','production','rolled back','87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0','024c9ce07a74a51c20252ccc2a6bab4151ac23a32d9ce926604156c80ad3a5cd','2026-11-25T02:33:03.783812+00:00','{"actor":"ada","at":"2026-11-25T02:33:03.783812+00:00","channel":"production","kind":"rolled back","label":"tickets@1","name":"tickets","previous":"024c9ce07a74a51c20252ccc2a6bab4151ac23a32d9ce926604156c80ad3a5cd","reason":"slow","seq":3,"verdict":null,"version":"87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0"}');
CREATE TABLE scorecards (
	seq INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	suite_digest TEXT NOT NULL, 
	training_fingerprint TEXT NOT NULL, 
	attached TEXT NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (seq), 
	CONSTRAINT scorecards_version_digest UNIQUE (version, digest), 
	FOREIGN KEY(version) REFERENCES versions (id)
);
INSERT INTO "scorecards" VALUES(1,'87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0','084a499b7906fdeec15f915669f9c52e8a1360f56c4b8f0d2e79c94233cc38d1','suite-1','66848e18df69de716e43e5e482b77aae137a86ca9f13594effa7e118edf6b533','2026-11-25T02:33:03.632704+00:00','{"target":"tiny","base_model":"tiny","renderer_name":"smollm2","suite_digest":"suite-1","created":"2026-01-01T00:00:00+00:00","versions":{},"format":1,"evals":[{"name":"tickets","layer":"product","metric":"accuracy","higher_is_better":true,"value":0.5,"interval":[0.3519952693346538,0.6480047306653463],"n":40,"settings":{"grader":"includes","limit":100,"items":40,"item_set":"059619f5b6c3fd94dc65afe12eca28a077304f8a342dcf3dd9fb0a39a43bf71b"},"settings_digest":"77cbffa3d3d94f24ef6769bc5ef235a0e5a9ea8a520c211246d3b7340058a861","binary":true,"bounds":[0,1],"extra":{},"items":{"id":["q0","q1","q10","q11","q12","q13","q14","q15","q16","q17","q18","q19","q2","q20","q21","q22","q23","q24","q25","q26","q27","q28","q29","q3","q30","q31","q32","q33","q34","q35","q36","q37","q38","q39","q4","q5","q6","q7","q8","q9"],"score":[1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0],"weight":[1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0],"tokens":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"stop_reason":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""],"error":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""],"input_digest":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""],"cluster":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""]}}]}');
INSERT INTO "scorecards" VALUES(2,'024c9ce07a74a51c20252ccc2a6bab4151ac23a32d9ce926604156c80ad3a5cd','ab7fcf4d3d0224a195a12a9c61a7178270e27387f3dc89cef1446f8ff6ad00d9','suite-1','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','2026-11-25T02:33:03.685940+00:00','{"target":"tinker://a/sampler_weights/30","base_model":"tiny","renderer_name":"smollm2","suite_digest":"suite-1","created":"2026-01-01T00:00:00+00:00","versions":{},"format":1,"evals":[{"name":"tickets","layer":"product","metric":"accuracy","higher_is_better":true,"value":1.0,"interval":[0.9123783988027135,1.0],"n":40,"settings":{"grader":"includes","limit":100,"items":40,"item_set":"059619f5b6c3fd94dc65afe12eca28a077304f8a342dcf3dd9fb0a39a43bf71b"},"settings_digest":"77cbffa3d3d94f24ef6769bc5ef235a0e5a9ea8a520c211246d3b7340058a861","binary":true,"bounds":[0,1],"extra":{},"items":{"id":["q0","q1","q10","q11","q12","q13","q14","q15","q16","q17","q18","q19","q2","q20","q21","q22","q23","q24","q25","q26","q27","q28","q29","q3","q30","q31","q32","q33","q34","q35","q36","q37","q38","q39","q4","q5","q6","q7","q8","q9"],"score":[1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0],"weight":[1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0],"tokens":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"stop_reason":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""],"error":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""],"input_digest":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""],"cluster":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""]}},{"name":"held_out","layer":"nll","metric":"nll","higher_is_better":false,"value":2.1922975929978117,"interval":[2.1372978042288175,2.247297381766806],"n":20,"settings":{"items":20,"item_set":"418fc3101f312ee5b5336fb789becc046e22b1f0cdd52d7a3bbecb047a744205"},"settings_digest":"9e2c21647cc3884c5d6b5865a4f7cd1bb0818315e721e2db0e2bf3a9e30d5df6","binary":false,"bounds":null,"extra":{},"items":{"id":["c0","c1","c10","c11","c12","c13","c14","c15","c16","c17","c18","c19","c2","c3","c4","c5","c6","c7","c8","c9"],"score":[2.0,2.02,2.2,2.22,2.24,2.26,2.2800000000000002,2.3,2.32,2.34,2.36,2.38,2.04,2.06,2.08,2.1,2.12,2.14,2.16,2.18],"weight":[20.0,21.0,23.0,24.0,25.0,26.0,20.0,21.0,22.0,23.0,24.0,25.0,22.0,23.0,24.0,25.0,26.0,20.0,21.0,22.0],"tokens":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"stop_reason":["","","","","","","","","","","","","","","","","","","",""],"error":["","","","","","","","","","","","","","","","","","","",""],"input_digest":["","","","","","","","","","","","","","","","","","","",""],"cluster":["","","","","","","","","","","","","","","","","","","",""]}}]}');
CREATE TABLE versions (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	base_model TEXT NOT NULL, 
	training_fingerprint TEXT NOT NULL, 
	created TEXT NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT versions_name_number UNIQUE (name, number)
);
INSERT INTO "versions" VALUES('87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0','tickets',1,'tiny','66848e18df69de716e43e5e482b77aae137a86ca9f13594effa7e118edf6b533','2026-11-25T02:33:03.627106+00:00','{"base_model":"tiny","created":"2026-11-25T02:33:03.627106+00:00","data":{},"engine":{},"git":{"dirty":false,"revision":"7884636d9e0510a7e6f48130826d968191f9cf15"},"id":"87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0","lora":{},"metrics":{},"name":"tickets","notes":"","number":1,"packages":{"inspect-ai":"0.3.285","inspect-evals":"0.26.0","numpy":"2.4.6","tinker":"0.38.0","tinker-cookbook":"0.5.8","tinker-officer":"0.1.0","torch":"2.13.0+cpu","transformers":"5.5.4"},"parents":[],"plan":{},"renderer_name":"smollm2","sampler_path":"","spec":{},"spec_digest":"","state_path":"","step":0,"stopped":"","training_fingerprint":"66848e18df69de716e43e5e482b77aae137a86ca9f13594effa7e118edf6b533"}');
INSERT INTO "versions" VALUES('024c9ce07a74a51c20252ccc2a6bab4151ac23a32d9ce926604156c80ad3a5cd','tickets',2,'tiny','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','2026-11-25T02:33:03.682640+00:00','{"base_model":"tiny","created":"2026-11-25T02:33:03.682640+00:00","data":{"fingerprint":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd","rows":300,"source":"tickets.jsonl"},"engine":{"tinker_officer":"0.1.0"},"git":{"dirty":false,"revision":"7884636d9e0510a7e6f48130826d968191f9cf15"},"id":"024c9ce07a74a51c20252ccc2a6bab4151ac23a32d9ce926604156c80ad3a5cd","lora":{"rank":16,"train_attn":true,"train_mlp":true},"metrics":{"held_out/nll":1.7,"train/mean_nll":1.2,"train/tokens":3000},"name":"tickets","notes":"better","number":2,"packages":{"inspect-ai":"0.3.285","inspect-evals":"0.26.0","numpy":"2.4.6","tinker":"0.38.0","tinker-cookbook":"0.5.8","tinker-officer":"0.1.0","torch":"2.13.0+cpu","transformers":"5.5.4"},"parents":["87f67966f2d4c1823ff58837a45872864d6ae87628cad33ceff88727bdaee4f0"],"plan":{"base_model":"tiny","computed":{"rank":16},"train_attn":true,"train_mlp":true},"renderer_name":"smollm2","sampler_path":"tinker://a/sampler_weights/30","spec":{"name":"tickets-r16"},"spec_digest":"5555555555555555555555555555555555555555555555555555555555555555","state_path":"tinker://a/weights/30","step":30,"stopped":"completed","training_fingerprint":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}');
CREATE INDEX moves_channel_name ON moves (channel, name, seq);
CREATE TRIGGER versions_no_update BEFORE UPDATE ON versions BEGIN SELECT RAISE(ABORT, 'versions is append-only'); END;
CREATE TRIGGER versions_no_delete BEFORE DELETE ON versions BEGIN SELECT RAISE(ABORT, 'versions is append-only'); END;
CREATE TRIGGER scorecards_no_update BEFORE UPDATE ON scorecards BEGIN SELECT RAISE(ABORT, 'scorecards is append-only'); END;
CREATE TRIGGER scorecards_no_delete BEFORE DELETE ON scorecards BEGIN SELECT RAISE(ABORT, 'scorecards is append-only'); END;
CREATE TRIGGER moves_no_update BEFORE UPDATE ON moves BEGIN SELECT RAISE(ABORT, 'moves is append-only'); END;
CREATE TRIGGER moves_no_delete BEFORE DELETE ON moves BEGIN SELECT RAISE(ABORT, 'moves is append-only'); END;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
COMMIT;
